#include "module.h"

#include "peak.h"

PyObject *raise_status(const module_state *state, qxr_status status, uint32_t failed_at)
{
    PyObject *arguments = Py_BuildValue("isI", (int)status, qxr_status_text(status), (unsigned int)failed_at);
    if (arguments != NULL) {
        PyErr_SetObject(state->status_error, arguments);
        Py_DECREF(arguments);
    }
    return NULL;
}

static PyObject *isas(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *found = PyList_New(0);
    if (found == NULL) {
        return NULL;
    }
    const char *name;
    for (uint32_t i = 0; (name = qxr_isa_name(i)) != NULL; i++) {
        PyObject *entry = Py_BuildValue("sO", name, qxr_isa_available(name) ? Py_True : Py_False);
        if (entry == NULL || PyList_Append(found, entry) < 0) {
            Py_XDECREF(entry);
            Py_DECREF(found);
            return NULL;
        }
        Py_DECREF(entry);
    }
    return found;
}

static PyObject *peak(PyObject *module, PyObject *arguments)
{
    const char *isa;
    unsigned long long least;
    uint64_t done = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "sK:peak_products", &isa, &least)) {
        return NULL;
    }
    if (!qxr_isa_available(isa)) {
        PyErr_Format(PyExc_ValueError, "instruction set %s is not available here", isa);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    done = peak_products(isa, least);
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLongLong(done);
}

static PyMethodDef functions[] = {
    {"peak_products", peak, METH_VARARGS,
     "peak_products(isa, least) -> int\n\nMultiplies and adds bytes at least so often with operands in the first-level "
     "cache, to be timed; returns how often,\n0 where there is no such kernel."},
    {"isas", isas, METH_NOARGS,
     "isas() -> list[tuple[str, bool]]\n\nInstruction sets this build has kernels for, best last, and whether this "
     "processor can run them."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    state->status_error = PyErr_NewExceptionWithDoc(
        "qexport._runtime.StatusError",
        "The runtime refused a file or a run. args: (status, text, operator or tensor index).", NULL, NULL);
    state->model_type = PyType_FromModuleAndSpec(module, &model_spec, NULL);
    if (state->status_error == NULL || state->model_type == NULL) {
        return -1;
    }
    if (PyModule_AddObjectRef(module, "StatusError", state->status_error) < 0) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "Model", state->model_type);
}

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    const module_state *state = PyModule_GetState(module);
    if (state != NULL) {
        Py_VISIT(state->model_type);
        Py_VISIT(state->status_error);
    }
    return 0;
}

static int clear(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    if (state != NULL) {
        Py_CLEAR(state->model_type);
        Py_CLEAR(state->status_error);
    }
    return 0;
}

static void release(void *module) { (void)clear(module); }

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_runtime",
    .m_doc = "The C runtime of the packed format; qexport.InferenceSession is its face.",
    .m_size = sizeof(module_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC PyInit__runtime(void) { return PyModuleDef_Init(&definition); }
