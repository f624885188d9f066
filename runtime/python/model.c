/* qexport._runtime.Model: an opened file. What several calls of run share is never written after the constructor, but
 * for the list of idle workspaces, which is touched under the GIL only. */
#include "module.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workspace.h"

#define FILE_ALIGN 8u
#define PREPACK_ALIGN 64u

typedef struct model_object {
    PyObject_HEAD
    Py_buffer file;       /* held as long as the model lives; obj is null where the file was copied */
    void *copy;           /* of the file */
    void *prepack_block;  /* unaligned */
    qxr_model model;
    uint32_t threads;
    workspace *idle;      /* of finished calls */
} model_object;

static void *align_up(void *block, size_t alignment)
{
    const size_t beyond = (uintptr_t)block % alignment;
    return (uint8_t *)block + (beyond ? alignment - beyond : 0);
}

/* Where the runtime may read the file: in place, unless the owner could still write to it (what was checked must stay
 * as it was checked) or it is not aligned. */
static const void *place_file(model_object *self)
{
    if (self->file.readonly && (uintptr_t)self->file.buf % FILE_ALIGN == 0) {
        return self->file.buf;
    }
    self->copy = malloc(self->file.len > 0 ? (size_t)self->file.len : 1u); /* aligned for any type */
    if (self->copy == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (self->file.len > 0) {
        memcpy(self->copy, self->file.buf, (size_t)self->file.len);
    }
    return self->copy;
}

static int open_model(model_object *self, const module_state *state, const char *isa)
{
    const void *bytes = place_file(self);
    if (bytes == NULL) {
        return -1;
    }
    const size_t size = (size_t)self->file.len;
    qxr_status status;
    Py_BEGIN_ALLOW_THREADS
    status = qxr_open(bytes, size, &self->model);
    Py_END_ALLOW_THREADS
    if (status == QXR_OK) {
        status = qxr_select_isa(&self->model, isa);
    }
    if (status != QXR_OK) {
        raise_status(state, status, self->model.failed_at);
        return -1;
    }
    const size_t prepacked = qxr_prepack_size(&self->model);
    if (prepacked == 0) {
        return 0;
    }
    self->prepack_block = malloc(prepacked + PREPACK_ALIGN);
    if (self->prepack_block == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    status = qxr_prepack(&self->model, align_up(self->prepack_block, PREPACK_ALIGN), prepacked);
    Py_END_ALLOW_THREADS
    if (status != QXR_OK) {
        raise_status(state, status, self->model.failed_at);
        return -1;
    }
    return 0;
}

static PyObject *model_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"file", "isa", "threads", NULL};
    Py_buffer file;
    const char *isa = NULL;
    unsigned int threads = 1;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "y*|zI:Model", names, &file, &isa, &threads)) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    model_object *self = (model_object *)allocate(type, 0); /* zeroed */
    if (self == NULL) {
        PyBuffer_Release(&file);
        return NULL;
    }
    self->file = file;
    self->threads = threads > 0 ? threads : 1;
    const int failed = open_model(self, PyType_GetModuleState(type), isa) < 0;
    if (self->copy != NULL) {
        PyBuffer_Release(&self->file);
    }
    if (failed) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void model_dealloc(PyObject *object)
{
    model_object *self = (model_object *)object;
    while (self->idle != NULL) {
        workspace *space = self->idle;
        self->idle = space->next;
        workspace_free(space);
    }
    free(self->prepack_block);
    free(self->copy);
    PyBuffer_Release(&self->file);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* Buffers of one argument of run, and their addresses. */
typedef struct buffers {
    Py_buffer *views;
    void **addresses;
    Py_ssize_t held;
} buffers;

typedef qxr_status (*info_getter)(const qxr_model *model, uint32_t index, qxr_tensor_info *info);

static void release_buffers(buffers *list)
{
    for (Py_ssize_t i = 0; i < list->held; i++) {
        PyBuffer_Release(&list->views[i]);
    }
    free(list->views);
    free(list->addresses);
    memset(list, 0, sizeof(*list));
}

/* Takes the buffer of one array; it must hold exactly `batch` samples of `elements` x `width` bytes. */
static int take_buffer(buffers *list, PyObject *array, const char *what, size_t batch, size_t elements, size_t width)
{
    Py_buffer *view = &list->views[list->held];
    if (PyObject_GetBuffer(array, view, width > 1 ? PyBUF_CONTIG : PyBUF_CONTIG_RO) < 0) {
        return -1;
    }
    list->addresses[list->held++] = view->buf;
    const size_t sample = elements * width; /* below 2^34: a file is smaller than 2 GiB, but a tensor need not be */
    if ((size_t)view->len / sample != batch || (size_t)view->len % sample != 0) {
        PyErr_Format(PyExc_ValueError, "%s %zd has %zd bytes, expected %zu samples of %zu bytes", what, list->held - 1,
                     view->len, batch, sample);
        return -1;
    }
    if (batch > 0 && (uintptr_t)view->buf % width != 0) {
        PyErr_Format(PyExc_ValueError, "%s %zd is not aligned", what, list->held - 1);
        return -1;
    }
    return 0;
}

/* Takes the buffers of a sequence of arrays, one for each tensor of a kind. */
static int take_buffers(buffers *list, PyObject *arrays, const char *what, const model_object *self, info_getter get,
                        uint32_t count, size_t batch, size_t width)
{
    const Py_ssize_t given = PySequence_Size(arrays);
    if (given < 0) {
        return -1;
    }
    if (given != (Py_ssize_t)count) {
        PyErr_Format(PyExc_ValueError, "got %zd %ss, expected %u", given, what, (unsigned int)count);
        return -1;
    }
    list->views = calloc(count, sizeof(Py_buffer));
    list->addresses = calloc(count, sizeof(void *));
    if (list->views == NULL || list->addresses == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < count; i++) {
        qxr_tensor_info info;
        PyObject *array = PySequence_GetItem(arrays, (Py_ssize_t)i);
        if (array == NULL) {
            return -1;
        }
        const qxr_status status = get(&self->model, i, &info);
        const int failed = status != QXR_OK || take_buffer(list, array, what, batch, info.elements, width) < 0;
        Py_DECREF(array);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

/* Takes the array that nanoseconds are added to: int64, one for each tensor of the file and one more. */
static int take_times(buffers *list, PyObject *array, const model_object *self)
{
    list->views = calloc(1, sizeof(Py_buffer));
    list->addresses = calloc(1, sizeof(void *));
    if (list->views == NULL || list->addresses == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return take_buffer(list, array, "times", 1, qxr_tensor_count(&self->model) + 1u, sizeof(int64_t));
}

static workspace *borrow_workspace(model_object *self)
{
    workspace *space = self->idle;
    while (space != NULL) {
        self->idle = space->next;
        if (workspace_is_usable(space)) {
            return space;
        }
        workspace_free(space); /* made before fork: its threads stayed in the parent */
        space = self->idle;
    }
    space = workspace_new(&self->model, self->threads);
    if (space == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return space;
}

static qxr_status run_without_gil(model_object *self, workspace *space, const samples *batch)
{
    qxr_status status;
    Py_BEGIN_ALLOW_THREADS
    status = workspace_run(space, batch);
    Py_END_ALLOW_THREADS
    space->next = self->idle;
    self->idle = space;
    return status;
}

static PyObject *model_run(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"inputs", "outputs", "batch", "tensors", "times", NULL};
    model_object *self = (model_object *)object;
    PyObject *inputs, *outputs, *tensors = Py_None, *times = Py_None, *result = NULL;
    Py_ssize_t batch;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOn|OO:run", names, &inputs, &outputs, &batch, &tensors,
                                     &times)) {
        return NULL;
    }
    if (batch < 0) {
        PyErr_SetString(PyExc_ValueError, "batch is negative");
        return NULL;
    }
    const qxr_model *model = &self->model;
    const size_t count = (size_t)batch;
    buffers in = {0}, out = {0}, all = {0}, clocks = {0};
    workspace *space = NULL;
    const int ready =
        take_buffers(&in, inputs, "input", self, qxr_input_info, qxr_input_count(model), count, sizeof(uint8_t)) == 0 &&
        take_buffers(&out, outputs, "output", self, qxr_output_info, qxr_output_count(model), count,
                     sizeof(int32_t)) == 0 &&
        (tensors == Py_None || take_buffers(&all, tensors, "tensor", self, qxr_tensor_info_at, qxr_tensor_count(model),
                                            count, sizeof(int32_t)) == 0) &&
        (times == Py_None || take_times(&clocks, times, self) == 0) &&
        (space = borrow_workspace(self)) != NULL;
    if (ready) {
        const samples whole = {count, in.addresses, out.addresses, all.addresses,
                               clocks.held > 0 ? clocks.addresses[0] : NULL};
        const qxr_status status = run_without_gil(self, space, &whole);
        result = status == QXR_OK
                     ? Py_NewRef(Py_None)
                     : raise_status(PyType_GetModuleState(Py_TYPE(object)), status, QXR_STATUS_COUNT);
    }
    release_buffers(&clocks);
    release_buffers(&all);
    release_buffers(&out);
    release_buffers(&in);
    return result;
}

/* List of (extents, lo, hi, index in the file). */
static PyObject *tensor_list(const model_object *self, info_getter get, uint32_t count)
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        qxr_tensor_info info;
        (void)get(&self->model, i, &info);
        PyObject *extents = PyTuple_New((Py_ssize_t)info.rank);
        for (uint32_t axis = 0; extents != NULL && axis < info.rank; axis++) {
            PyObject *extent = PyLong_FromUnsignedLong(info.extent[axis]);
            if (extent == NULL || PyTuple_SetItem(extents, (Py_ssize_t)axis, extent) < 0) {
                Py_CLEAR(extents);
            }
        }
        PyObject *entry = extents == NULL ? NULL
                                          : Py_BuildValue("NiiI", extents, (int)info.lo, (int)info.hi,
                                                          (unsigned int)info.index);
        if (entry == NULL || PyList_Append(list, entry) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(entry);
    }
    return list;
}

static PyObject *get_inputs(PyObject *object, void *closure)
{
    (void)closure;
    const model_object *self = (const model_object *)object;
    return tensor_list(self, qxr_input_info, qxr_input_count(&self->model));
}

static PyObject *get_outputs(PyObject *object, void *closure)
{
    (void)closure;
    const model_object *self = (const model_object *)object;
    return tensor_list(self, qxr_output_info, qxr_output_count(&self->model));
}

static PyObject *get_tensors(PyObject *object, void *closure)
{
    (void)closure;
    const model_object *self = (const model_object *)object;
    return tensor_list(self, qxr_tensor_info_at, qxr_tensor_count(&self->model));
}

static PyObject *get_metadata(PyObject *object, void *closure)
{
    (void)closure;
    const uint8_t *bytes = NULL;
    size_t size = 0;
    const qxr_status status = qxr_metadata(&((const model_object *)object)->model, &bytes, &size);
    if (status != QXR_OK) {
        return raise_status(PyType_GetModuleState(Py_TYPE(object)), status, QXR_STATUS_COUNT);
    }
    return PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size);
}

static PyObject *get_isa(PyObject *object, void *closure)
{
    (void)closure;
    return PyUnicode_FromString(qxr_selected_isa(&((const model_object *)object)->model));
}

static PyObject *get_threads(PyObject *object, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLong(((const model_object *)object)->threads);
}

static PyObject *get_arena_size(PyObject *object, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(qxr_arena_size(&((const model_object *)object)->model, 1));
}

static PyGetSetDef attributes[] = {
    {"inputs", get_inputs, NULL, "Inputs: list of (extents, lo, hi, index of the tensor).", NULL},
    {"outputs", get_outputs, NULL, "Outputs, likewise.", NULL},
    {"tensors", get_tensors, NULL, "All tensors of the file, likewise.", NULL},
    {"metadata", get_metadata, NULL, "Metadata as stored: JSON or zlib data.", NULL},
    {"isa", get_isa, NULL, "Name of the instruction set in use.", NULL},
    {"threads", get_threads, NULL, "How many threads a run uses.", NULL},
    {"arena_size", get_arena_size, NULL, "Bytes of working memory for one thread.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef methods[] = {
    {"run", (PyCFunction)(void (*)(void))model_run, METH_VARARGS | METH_KEYWORDS,
     "run(inputs, outputs, batch, tensors=None, times=None)\n\nRuns `batch` samples: inputs (uint8) are read, outputs "
     "(int32) and, where given, `tensors` (int32, one array\nfor each tensor of the file; those of the inputs stay as they are) are "
     "written. All arrays are contiguous, batch first,\nchannels second. To `times` (int64, an element for each tensor "
     "and one more) nanoseconds are added: each group of operators\nto the element of its last tensor, outputs to the last "
     "one. The GIL is released; calls may overlap."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, model_new},
    {Py_tp_dealloc, model_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_tp_doc, "Model(file, isa=None, threads=1)\n\nA checked .qpk file, given as a bytes-like object. It is used in place if "
                "it is read-only and 8-byte aligned, else copied."},
    {0, NULL},
};

PyType_Spec model_spec = {
    .name = "qexport._runtime.Model",
    .basicsize = sizeof(model_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
