/* The inner loop of grams.py, in C: the n-grams of a text, looked up and summed.

   Law: answers exactly as the Python beside it does (tests/unit/test_grams.py holds the two against each other); holds no
   state between calls.

   A token is a character that is no separator, a word of letters of an alphabet, or a run of digits, by its length. The key of
   an n-gram is a 32-bit hash of its tokens' hashes. A table of keys gives the row of weights, one signed byte per category. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define ORDERS 3
#define WIDEST 256 /* categories */
#define BASIS 2166136261u
#define PRIME 16777619u
#define SHORT 24 /* n-grams that a text counts as having at least */
#define NONE UINT32_MAX

typedef struct {
    PyObject_HEAD
    Py_buffer weights, limits;
    uint32_t *slots; /* key, row; row NONE: free */
    uint32_t mask;
    Py_ssize_t width;
} Table;

static inline uint32_t mix(uint32_t h)
{
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    return h ^ h >> 16;
}

static int Table_init(Table *self, PyObject *args, PyObject *kwargs)
{
    Py_buffer keys;
    PyObject *weights, *limits;
    if (!PyArg_ParseTuple(args, "y*OO", &keys, &weights, &limits))
        return -1;
    const Py_ssize_t count = keys.len / (Py_ssize_t)sizeof(uint32_t);
    int failed = -1;
    if (self->slots)
        PyErr_SetString(PyExc_TypeError, "a table is made once");
    else if (PyObject_GetBuffer(weights, &self->weights, PyBUF_C_CONTIGUOUS) == 0 &&
             PyObject_GetBuffer(limits, &self->limits, PyBUF_C_CONTIGUOUS) == 0) {
        self->width = self->limits.len / (Py_ssize_t)sizeof(float);
        uint32_t size = 16;
        while (size < 2 * (uint64_t)count)
            size *= 2;
        self->mask = size - 1;
        if (self->width < 1 || self->width > WIDEST || self->weights.len != count * self->width)
            PyErr_SetString(PyExc_ValueError, "weights must be keys x limits signed bytes, at most 256 limits");
        else if (!(self->slots = PyMem_Malloc((size_t)size * 2 * sizeof(uint32_t))))
            PyErr_NoMemory();
        else {
            memset(self->slots, 0xFF, (size_t)size * 2 * sizeof(uint32_t));
            for (Py_ssize_t row = 0; row < count; row++) {
                const uint32_t key = ((const uint32_t *)keys.buf)[row];
                uint32_t at = key & self->mask;
                while (self->slots[2 * at + 1] != NONE)
                    at = (at + 1) & self->mask;
                self->slots[2 * at] = key;
                self->slots[2 * at + 1] = (uint32_t)row;
            }
            failed = 0;
        }
    }
    PyBuffer_Release(&keys);
    return failed;
}

static void Table_dealloc(Table *self)
{
    if (self->weights.obj)
        PyBuffer_Release(&self->weights);
    if (self->limits.obj)
        PyBuffer_Release(&self->limits);
    PyMem_Free(self->slots);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static inline uint32_t some(uint32_t h)
{
    return h ? h : 1;
}

static inline int is_letter(Py_UCS4 c)
{
    return (c >= 'a' && c <= 'z') || (c >= 0xC0 && c < 0x2000);
}

static inline int is_digit(Py_UCS4 c)
{
    return c >= '0' && c <= '9';
}

static inline int is_alone(Py_UCS4 c)
{
    return (c >= 0x2E80 && !(c >= 0x3000 && c < 0x3040) && c != 0x30FB) || c == '!' || c == '?';
}

/* The next token of the text from *at on: its hash, never 0; 0 at the end. */
static inline uint32_t token(int kind, const void *data, Py_ssize_t size, Py_ssize_t *at)
{
    Py_ssize_t i = *at;
    uint32_t h = BASIS;
    for (; i < size; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        if (is_alone(c)) {
            *at = i + 1;
            return some((h ^ c) * PRIME);
        }
        if (is_letter(c)) {
            for (; i < size && is_letter(c = PyUnicode_READ(kind, data, i)); i++)
                h = (h ^ c) * PRIME;
            *at = i;
            return some(h);
        }
        if (is_digit(c)) {
            const Py_ssize_t first = i;
            while (i < size && is_digit(PyUnicode_READ(kind, data, i)))
                i++;
            *at = i;
            return some((h ^ (uint32_t)(i - first < 8 ? i - first : 8)) * PRIME);
        }
    }
    *at = i;
    return 0;
}

/* look(text, before): (number of n-grams, their sums, one limit is exceeded) */
static PyObject *Table_look(Table *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyUnicode_Check(args[0]) || !PyTuple_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "look(text, tuple of what it gave for the texts before)");
    if (!self->slots)
        return PyErr_Format(PyExc_TypeError, "a table that was not made");
    int32_t sums[WIDEST] = {0}, all[WIDEST];
    const Py_ssize_t width = self->width, size = PyUnicode_GET_LENGTH(args[0]);
    const int kind = PyUnicode_KIND(args[0]);
    const void *data = PyUnicode_DATA(args[0]);
    const int8_t *weights = self->weights.buf;
    const float *limits = self->limits.buf;
    Py_ssize_t n = 0, at = 0;
    uint32_t last[ORDERS - 1] = {0, 0}, h;
    while ((h = token(kind, data, size, &at))) {
        const uint32_t keys[ORDERS] = {mix(h + 1), mix(last[0] * PRIME + h + 2),
                                       mix((last[1] * PRIME + last[0]) * PRIME + h + 3)};
        for (int order = 0; order < ORDERS && (!order || last[order - 1]); order++) {
            n++;
            uint32_t slot = keys[order] & self->mask;
            while (self->slots[2 * slot + 1] != NONE && self->slots[2 * slot] != keys[order])
                slot = (slot + 1) & self->mask;
            if (self->slots[2 * slot + 1] != NONE) {
                const int8_t *row = weights + (size_t)self->slots[2 * slot + 1] * width;
                for (Py_ssize_t k = 0; k < width; k++)
                    sums[k] += row[k];
            }
        }
        last[1] = last[0];
        last[0] = h;
    }
    memcpy(all, sums, width * sizeof(int32_t));
    Py_ssize_t together = n;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[1]); i++) {
        PyObject *part = PyTuple_GET_ITEM(args[1], i), *told;
        if (!PyTuple_Check(part) || PyTuple_GET_SIZE(part) < 2 || !PyBytes_Check(told = PyTuple_GET_ITEM(part, 1)) ||
            PyBytes_GET_SIZE(told) != width * (Py_ssize_t)sizeof(int32_t))
            return PyErr_Format(PyExc_TypeError, "look(text, tuple of what it gave for the texts before)");
        together += PyLong_AsSsize_t(PyTuple_GET_ITEM(part, 0));
        if (PyErr_Occurred())
            return NULL;
        const int32_t *more = (const int32_t *)PyBytes_AS_STRING(told);
        for (Py_ssize_t k = 0; k < width; k++)
            all[k] += more[k];
    }
    const float one = sqrtf((float)(n < SHORT ? SHORT : n)), whole = sqrtf((float)(together < SHORT ? SHORT : together));
    int over = 0;
    for (Py_ssize_t k = 0; k < width; k++)
        over |= ((float)sums[k] >= limits[k] * one) | ((float)all[k] >= limits[k] * whole);
    return Py_BuildValue("(ny#O)", n, (char *)sums, width * (Py_ssize_t)sizeof(int32_t), over && n ? Py_True : Py_False);
}

static PyMethodDef Table_methods[] = {
    {"look", (PyCFunction)(void (*)(void))Table_look, METH_FASTCALL,
     "look(text, before): (number of n-grams, their summed weights, whether a limit is exceeded by this text, or by it and those before)"},
    {NULL},
};

static PyTypeObject TableType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "app._grams.Table",
    .tp_basicsize = sizeof(Table),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Table(keys, weights, limits)",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Table_init,
    .tp_dealloc = (destructor)Table_dealloc,
    .tp_methods = Table_methods,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "app._grams", NULL, 0, NULL};

PyMODINIT_FUNC PyInit__grams(void)
{
    if (PyType_Ready(&TableType) < 0)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddObjectRef(made, "Table", (PyObject *)&TableType) < 0)
        Py_CLEAR(made);
    return made;
}
