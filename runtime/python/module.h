/* Parts of the extension module qexport._runtime; docstrings say what they look like from Python. */
#ifndef QXR_PYTHON_MODULE_H
#define QXR_PYTHON_MODULE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000 /* one binary for every Python from 3.11 on */
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "qxr.h"

typedef struct module_state {
    PyObject *model_type;
    PyObject *status_error;
} module_state;

extern PyType_Spec model_spec;

/* Raises StatusError(status, text, failed_at); returns null. */
PyObject *raise_status(const module_state *state, qxr_status status, uint32_t failed_at);

#endif
