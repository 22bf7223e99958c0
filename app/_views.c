/* The inner loops of redrawn.py, pinyin.py and codes.py, in C: what there is to look at in a text that most texts have none of.

   Law: answers exactly as the Python beside it does (tests/unit/test_native_views.py holds the two against each other); holds
   no state between calls, copies nothing of a text but where something stands. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define ROOM 1024 /* characters that fit on the stack */

/* `call` with the kind of `text` as a constant: the compiler makes a loop for each. */
#define BY_KIND(text, call)                         \
    switch (PyUnicode_KIND(text)) {                 \
    case PyUnicode_1BYTE_KIND: {                    \
        enum { kind = PyUnicode_1BYTE_KIND };       \
        return call;                                \
    }                                               \
    case PyUnicode_2BYTE_KIND: {                    \
        enum { kind = PyUnicode_2BYTE_KIND };       \
        return call;                                \
    }                                               \
    default: {                                      \
        enum { kind = PyUnicode_4BYTE_KIND };       \
        return call;                                \
    }                                               \
    }

/* *list, made when there is something to put in, gets `item`, which is taken over; -1 if that fails. */
static int put(PyObject **list, PyObject *item)
{
    if (!item || (!*list && !(*list = PyList_New(0)))) {
        Py_XDECREF(item);
        return -1;
    }
    const int failed = PyList_Append(*list, item);
    Py_DECREF(item);
    return failed;
}

/* `list`, None if it was not made, or NULL if something failed. */
static PyObject *made_of(PyObject *list, int failed)
{
    if (failed) {
        Py_XDECREF(list);
        return NULL;
    }
    return list ? list : Py_NewRef(Py_None);
}

/* ---- terms drawn with other characters (redrawn.py)

   A key is two neighbours of a term. Letters number the characters that a text may have for either of them. A table of bits, a
   row by the letter that comes first, says of most pairs that they are no key's; by that letter stand the keys that it may
   begin, ascending. What may stand for a character is a set: some bits that say no for most, then the characters in order, each
   with what speaks for it (redrawn._speaks). */

#define UNKNOWN 0u
#define GONE 1u
#define SEVERAL 0x80000000u
#define CODES 0x34000 /* no Han character lies beyond */
#define COLUMNS 4096
#define MARKS 512
#define EVIDENCE 7u /* of the eight bits beside a character in a set: how much */
#define SHAPED 8u   /* it has the shape of the other */
#define STYLED 16u  /* it is the other in another style */
#define ABSENT -1

typedef struct {
    int32_t number, length, begin; /* the term begins `begin` from its key */
    int32_t at;                    /* of its characters, in codes and sets */
} Owner;

typedef struct {
    int32_t number, second; /* the set of what may come second */
} Key;

typedef struct {
    uint64_t marks[MARKS / 64];
    int32_t begin, end; /* in alike */
} Set;

typedef struct {
    PyObject_HEAD
    Py_buffer map;     /* of text.CharTable: what vanishes */
    uint16_t *letters; /* by code point, 0: none */
    uint64_t *bits;
    int32_t *firsts;   /* by letter, where its keys begin; one more than letters */
    Key *keys;
    int32_t *owns;     /* by key's number, where its owners begin; one more than keys */
    Owner *owners;
    uint32_t *codes;   /* the terms' characters, one after the other */
    int32_t *asked;    /* and the set of each, ABSENT: the key's, looked up already */
    Set *sets;
    uint32_t *alike;   /* character << 8 | what speaks for it, ascending in a set */
    int32_t particles; /* the set of those */
} Drawn;

static void Drawn_dealloc(Drawn *self)
{
    void *all[] = {self->letters, self->bits, self->firsts, self->keys, self->owns,
                   self->owners, self->codes, self->asked, self->sets, self->alike};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        PyMem_Free(all[i]);
    if (self->map.obj)
        PyBuffer_Release(&self->map);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int code_order(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int wrong(const char *what)
{
    PyErr_SetString(PyExc_TypeError, what);
    return -1;
}

#define MAKE(place, count) (!((place) = PyMem_Calloc((size_t)(count) + 1, sizeof *(place))))

/* given: for each set, its characters and what speaks for each. */
static int take_sets(Drawn *self, PyObject *given)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(given);
    Py_ssize_t all = 0;
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *one = PyTuple_GET_ITEM(given, k);
        if (!PyTuple_Check(one) || PyTuple_GET_SIZE(one) != 2 || !PyUnicode_Check(PyTuple_GET_ITEM(one, 0)) ||
            !PyBytes_Check(PyTuple_GET_ITEM(one, 1)) ||
            PyBytes_GET_SIZE(PyTuple_GET_ITEM(one, 1)) != PyUnicode_GET_LENGTH(PyTuple_GET_ITEM(one, 0)))
            return wrong("a set is (characters, a byte for each)");
        all += PyUnicode_GET_LENGTH(PyTuple_GET_ITEM(one, 0));
    }
    if (all > INT32_MAX || MAKE(self->sets, count) || MAKE(self->alike, all))
        return -1;
    int32_t end = 0;
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *one = PyTuple_GET_ITEM(PyTuple_GET_ITEM(given, k), 0);
        const char *speaks = PyBytes_AS_STRING(PyTuple_GET_ITEM(PyTuple_GET_ITEM(given, k), 1));
        Set *set = &self->sets[k];
        set->begin = end;
        for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(one); i++) {
            const uint32_t c = PyUnicode_READ_CHAR(one, i);
            self->alike[end++] = c << 8 | (uint8_t)speaks[i];
            set->marks[c % MARKS / 64] |= (uint64_t)1 << c % 64;
        }
        set->end = end;
        qsort(self->alike + set->begin, end - set->begin, sizeof *self->alike, code_order);
    }
    return 0;
}

static int take_letter(Drawn *self, uint32_t c, int32_t *letters)
{
    if (c >= CODES || (!self->letters[c] && *letters == UINT16_MAX)) {
        PyErr_SetString(PyExc_ValueError, "no Han character, or too many");
        return -1;
    }
    if (!self->letters[c])
        self->letters[c] = (uint16_t)++*letters;
    return 0;
}

/* given: for each key, what may come first, the number of the set of what may come second, and its owners. */
static int take_keys(Drawn *self, PyObject *given, Py_ssize_t sets)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(given);
    Py_ssize_t all = 0;
    int32_t letters = 0, *seconds, *next = NULL;
    int failed = -1;
    if (MAKE(self->letters, CODES) || MAKE(seconds, count))
        return -1;
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *key = PyTuple_GET_ITEM(given, k);
        if (!PyTuple_Check(key) || PyTuple_GET_SIZE(key) != 3 || !PyUnicode_Check(PyTuple_GET_ITEM(key, 0))) {
            wrong("a key is (firsts, set of seconds, owners)");
            goto done;
        }
        PyObject *one = PyTuple_GET_ITEM(key, 0);
        const long second = PyLong_AsLong(PyTuple_GET_ITEM(key, 1));
        if (second < 0 || second >= sets) {
            wrong("a set of seconds is a number of `sets`");
            goto done;
        }
        seconds[k] = (int32_t)second;
        all += PyUnicode_GET_LENGTH(one);
        for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(one); i++)
            if (take_letter(self, PyUnicode_READ_CHAR(one, i), &letters) < 0)
                goto done;
        for (int32_t i = self->sets[second].begin; i < self->sets[second].end; i++)
            if (take_letter(self, self->alike[i] >> 8, &letters) < 0)
                goto done;
    }
    const size_t words = COLUMNS / 64;
    if (all > INT32_MAX || MAKE(self->firsts, letters + 1) || MAKE(next, letters + 1) || MAKE(self->keys, all) ||
        MAKE(self->bits, (letters + 1) * words))
        goto done;
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *one = PyTuple_GET_ITEM(PyTuple_GET_ITEM(given, k), 0);
        const Set *set = &self->sets[seconds[k]];
        uint64_t row[COLUMNS / 64] = {0};
        for (int32_t i = set->begin; i < set->end; i++) {
            const uint32_t column = self->letters[self->alike[i] >> 8] % COLUMNS;
            row[column / 64] |= (uint64_t)1 << column % 64;
        }
        for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(one); i++) {
            const uint16_t letter = self->letters[PyUnicode_READ_CHAR(one, i)];
            self->firsts[letter + 1]++;
            for (size_t w = 0; w < words; w++)
                self->bits[letter * words + w] |= row[w];
        }
    }
    for (int32_t i = 0; i <= letters; i++)
        self->firsts[i + 1] += self->firsts[i];
    memcpy(next, self->firsts, (letters + 1) * sizeof *next);
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *one = PyTuple_GET_ITEM(PyTuple_GET_ITEM(given, k), 0);
        for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(one); i++)
            self->keys[next[self->letters[PyUnicode_READ_CHAR(one, i)]]++] = (Key){(int32_t)k, seconds[k]};
    }
    failed = 0;
done:
    PyMem_Free(seconds);
    PyMem_Free(next);
    return failed;
}

/* Of each key: (number, where it begins from the key, term, the set of each of its characters or ABSENT: the key's). */
static int take_owners(Drawn *self, PyObject *given, Py_ssize_t sets)
{
    const char *shape = "an owner is (number, begin, term, set of each of its characters)";
    const Py_ssize_t count = PyTuple_GET_SIZE(given);
    Py_ssize_t all = 0, characters = 0;
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *some = PyTuple_GET_ITEM(PyTuple_GET_ITEM(given, k), 2);
        if (!PyTuple_Check(some))
            return wrong(shape);
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(some); i++, all++) {
            PyObject *one = PyTuple_GET_ITEM(some, i);
            if (!PyTuple_Check(one) || PyTuple_GET_SIZE(one) != 4 || !PyUnicode_Check(PyTuple_GET_ITEM(one, 2)) ||
                !PyTuple_Check(PyTuple_GET_ITEM(one, 3)) ||
                PyTuple_GET_SIZE(PyTuple_GET_ITEM(one, 3)) != PyUnicode_GET_LENGTH(PyTuple_GET_ITEM(one, 2)))
                return wrong(shape);
            characters += PyUnicode_GET_LENGTH(PyTuple_GET_ITEM(one, 2));
        }
    }
    if (characters > INT32_MAX || MAKE(self->owns, count) || MAKE(self->owners, all) || MAKE(self->codes, characters) ||
        MAKE(self->asked, characters))
        return -1;
    int32_t n = 0, at = 0;
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *some = PyTuple_GET_ITEM(PyTuple_GET_ITEM(given, k), 2);
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(some); i++) {
            PyObject *one = PyTuple_GET_ITEM(some, i), *term = PyTuple_GET_ITEM(one, 2);
            const int32_t length = (int32_t)PyUnicode_GET_LENGTH(term);
            const long number = PyLong_AsLong(PyTuple_GET_ITEM(one, 0)), begin = PyLong_AsLong(PyTuple_GET_ITEM(one, 1));
            self->owners[n++] = (Owner){(int32_t)number, length, (int32_t)begin, at};
            for (int32_t j = 0; j < length; j++, at++) {
                const long set = PyLong_AsLong(PyTuple_GET_ITEM(PyTuple_GET_ITEM(one, 3), j));
                if (set < (length > 2 ? ABSENT : 0) || set >= sets)
                    return wrong(shape);
                self->codes[at] = PyUnicode_READ_CHAR(term, j);
                self->asked[at] = (int32_t)set;
            }
        }
        self->owns[k + 1] = n;
    }
    return PyErr_Occurred() ? -1 : 0;
}

static int Drawn_init(Drawn *self, PyObject *args, PyObject *kwargs)
{
    PyObject *map, *sets, *keys;
    if (!PyArg_ParseTuple(args, "OO!O!i", &map, &PyTuple_Type, &sets, &PyTuple_Type, &keys, &self->particles))
        return -1;
    if (self->map.obj || self->particles < 0 || self->particles >= PyTuple_GET_SIZE(sets))
        return wrong("it is made once, the particles a number of `sets`");
    if (PyObject_GetBuffer(map, &self->map, PyBUF_C_CONTIGUOUS) < 0)
        return -1;
    const Py_ssize_t count = PyTuple_GET_SIZE(sets);
    if (take_sets(self, sets) == 0 && take_keys(self, keys, count) == 0 && take_owners(self, keys, count) == 0)
        return 0;
    if (!PyErr_Occurred())
        PyErr_NoMemory();
    return -1;
}

/* What speaks for `code` in a set, or ABSENT. */
INLINE int32_t in_set(const Drawn *self, int32_t number, uint32_t code)
{
    const Set *set = &self->sets[number];
    if (!(set->marks[code % MARKS / 64] >> code % 64 & 1))
        return ABSENT;
    int32_t low = set->begin, high = set->end;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        const uint32_t found = self->alike[middle] >> 8;
        if (found == code)
            return self->alike[middle] & 255;
        if (found < code)
            low = middle + 1;
        else
            high = middle;
    }
    return ABSENT;
}

/* redrawn._Owner.may_be, of the n characters that are left of a text */
static int may_be(const Drawn *self, const Owner *owner, const uint32_t *text, Py_ssize_t n, Py_ssize_t begin, int32_t brief)
{
    if (begin < 0 || begin + owner->length > n)
        return 0;
    const uint32_t *term = self->codes + owner->at;
    const int32_t *asked = self->asked + owner->at;
    text += begin;
    int unlike = owner->length <= brief;
    for (int32_t j = 0; j < owner->length; j++)
        if (asked[j] >= 0 && in_set(self, asked[j], text[j]) == ABSENT) {
            if (unlike)
                return 0;
            unlike = 1;
        }
    if (!memcmp(text, term, owner->length * sizeof *term))
        return 0;
    for (int32_t j = 0; owner->length <= brief && j < owner->length; j++)
        if ((text[j] != term[j] || owner->length == 2) && in_set(self, self->particles, text[j]) != ABSENT)
            return 0;
    if (owner->length > 2)
        return 1;
    uint32_t evidence = 0, all = 0;
    for (int32_t j = 0; j < 2; j++)
        if (text[j] != term[j]) {
            const uint32_t speaks = (uint32_t)in_set(self, asked[j], text[j]);
            evidence += speaks & EVIDENCE;
            all |= speaks;
        }
    if (all & STYLED)
        return 1;
    return text[0] == term[0] || text[1] == term[1] ? evidence >= 2 || all & SHAPED : evidence >= 4;
}

static PyObject *told(const Owner *owner, const int32_t *places)
{
    PyObject *where = PyTuple_New(owner->length);
    for (int32_t j = 0; where && j < owner->length; j++) {
        PyObject *place = PyLong_FromLong(places[j]);
        if (!place)
            Py_CLEAR(where);
        else
            PyTuple_SET_ITEM(where, j, place);
    }
    return where ? Py_BuildValue("(iN)", owner->number, where) : NULL;
}

INLINE PyObject *drawn(const Drawn *self, PyObject *text, int32_t brief, const int kind)
{
    const void *data = PyUnicode_DATA(text);
    const Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    const uint32_t *map = self->map.buf;
    const size_t known = (size_t)self->map.len / sizeof *map;
    uint32_t few[ROOM], *left = few;
    int32_t near[ROOM], *places = near;
    Py_ssize_t room = ROOM, n = 0;
    PyObject *hits = NULL;
    int failed = 0;
    if (size > INT32_MAX)
        return PyErr_Format(PyExc_ValueError, "a text of %zd characters", size);
    for (Py_ssize_t i = 0; i < size; i++) {
        const uint32_t c = PyUnicode_READ(kind, data, i), v = c < known ? map[c] : GONE;
        if (v == GONE)
            continue;
        if (v == UNKNOWN) {
            hits = Py_NewRef(Py_False);
            goto done;
        }
        const uint32_t many = v & SEVERAL ? v & 31 : 1;
        if (n + 32 > room) {
            const Py_ssize_t more = 2 * room + size;
            uint32_t *wider = PyMem_Malloc(more * sizeof *wider);
            int32_t *further = PyMem_Malloc(more * sizeof *further);
            if (wider)
                memcpy(wider, left, n * sizeof *wider);
            if (further)
                memcpy(further, places, n * sizeof *further);
            if (left != few) {
                PyMem_Free(left);
                PyMem_Free(places);
            }
            left = wider, places = further, room = more;
            if (!wider || !further) {
                failed = 1;
                PyErr_NoMemory();
                goto done;
            }
        }
        for (uint32_t k = 0; k < many; k++, n++)
            left[n] = c, places[n] = (int32_t)i;
    }
    uint32_t next = n && left[0] < CODES ? self->letters[left[0]] : 0;
    for (Py_ssize_t i = 0; i + 1 < n; i++) {
        const uint32_t first = next, code = left[i + 1];
        next = code < CODES ? self->letters[code] : 0;
        const uint32_t column = next % COLUMNS;
        if (!(self->bits[first * (COLUMNS / 64) + column / 64] >> column % 64 & 1))
            continue;
        for (int32_t k = self->firsts[first]; k < self->firsts[first + 1]; k++) {
            const Key key = self->keys[k];
            if (in_set(self, key.second, code) == ABSENT)
                continue;
            for (int32_t o = self->owns[key.number]; o < self->owns[key.number + 1]; o++) {
                const Owner *owner = &self->owners[o];
                const Py_ssize_t begin = i + owner->begin;
                if (may_be(self, owner, left, n, begin, brief) && put(&hits, told(owner, places + begin)) < 0) {
                    failed = 1;
                    goto done;
                }
            }
        }
    }
done:
    if (left != few) {
        PyMem_Free(left);
        PyMem_Free(places);
    }
    return made_of(hits, failed);
}

static PyObject *Drawn_find(Drawn *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyUnicode_Check(args[0]) || !PyLong_Check(args[1]) || !self->asked)
        return PyErr_Format(PyExc_TypeError, "find(text, short)");
    const int32_t brief = (int32_t)PyLong_AsLong(args[1]);
    if (brief == -1 && PyErr_Occurred())
        return NULL;
    BY_KIND(args[0], drawn(self, args[0], brief, kind))
}

static PyMethodDef Drawn_methods[] = {
    {"find", (PyCFunction)(void (*)(void))Drawn_find, METH_FASTCALL,
     "find(text, short): (number, places of its characters) of every term that may stand redrawn, None where there is none, "
     "False where a character is unknown."},
    {NULL},
};

static PyTypeObject DrawnType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "app._views.Drawn",
    .tp_doc = "Drawn(map, sets, keys, particles): as redrawn.Native gives them.",
    .tp_basicsize = sizeof(Drawn),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Drawn_init,
    .tp_dealloc = (destructor)Drawn_dealloc,
    .tp_methods = Drawn_methods,
};

/* ---- pinyin in Latin letters (pinyin.py) */

#define LETTERS 26
#define SYLLABLE 6 /* letters at most */
#define TOKEN 24   /* letters of a token of syllables at most */
#define QUOTE 0x2019

enum { NONE, TONED, PLAIN }; /* a syllable where its tone is written, or anywhere */

typedef struct {
    uint16_t next[LETTERS];
    uint8_t what;
} Node;

typedef struct {
    PyObject_HEAD
    Node *nodes; /* the root is 0 */
} Syllables;

static void Syllables_dealloc(Syllables *self)
{
    PyMem_Free(self->nodes);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int Syllables_init(Syllables *self, PyObject *args, PyObject *kwargs)
{
    PyObject *names;
    if (!PyArg_ParseTuple(args, "O!", &PyDict_Type, &names))
        return -1;
    if (self->nodes || PyDict_GET_SIZE(names) > UINT16_MAX / SYLLABLE - 1) {
        PyErr_SetString(PyExc_TypeError, "made once, of fewer syllables");
        return -1;
    }
    if (!(self->nodes = PyMem_Calloc(PyDict_GET_SIZE(names) * SYLLABLE + 1, sizeof(Node)))) {
        PyErr_NoMemory();
        return -1;
    }
    uint16_t size = 1;
    Py_ssize_t at = 0;
    PyObject *name, *lone;
    while (PyDict_Next(names, &at, &name, &lone)) {
        if (!PyUnicode_Check(name)) {
            PyErr_SetString(PyExc_TypeError, "a syllable is a text");
            return -1;
        }
        const Py_ssize_t length = PyUnicode_GET_LENGTH(name);
        Py_ssize_t i = 0;
        while (i < length && PyUnicode_READ_CHAR(name, i) - 'a' < LETTERS)
            i++;
        if (!length || length > SYLLABLE || i < length)
            continue; /* no token holds it */
        uint16_t node = 0;
        for (i = 0; i < length; i++) {
            uint16_t *next = &self->nodes[node].next[PyUnicode_READ_CHAR(name, i) - 'a'];
            node = *next ? *next : (*next = size++);
        }
        self->nodes[node].what = lone == Py_True ? TONED : PLAIN;
    }
    return 0;
}

INLINE int is_letter(Py_UCS4 c)
{
    return c - 'a' < LETTERS;
}

INLINE int is_apostrophe(Py_UCS4 c)
{
    return c == '\'' || c == QUOTE;
}

/* Where `(?:[a-z]{2,6}[1-5])+(?![a-z0-9])` ends from `at`, 0 if it does not match; *known: every one of them is a syllable;
   *barred: up to where it does not match either from any later one of those looked at. */
INLINE Py_ssize_t toned(const Syllables *self, const void *data, Py_ssize_t size, Py_ssize_t at, int *known, Py_ssize_t *barred,
                        const int kind)
{
    Py_ssize_t end = 0;
    *known = 1;
    for (;;) {
        Py_ssize_t i = at;
        uint16_t node = 0;
        int lost = 0;
        for (; i < size && i - at <= SYLLABLE; i++) {
            const Py_UCS4 c = PyUnicode_READ(kind, data, i);
            if (!is_letter(c))
                break;
            if (!lost)
                lost = !(node = self->nodes[node].next[c - 'a']);
        }
        if (i - at < 2 || i - at > SYLLABLE || i == size || PyUnicode_READ(kind, data, i) - '1' >= 5u)
            break;
        *known &= !lost && self->nodes[node].what != NONE;
        end = at = i + 1;
    }
    if (end && end < size) {
        /* What was given back would end before a letter as well. */
        const Py_UCS4 c = PyUnicode_READ(kind, data, end);
        if (is_letter(c) || c - '0' < 10u) {
            *barred = end;
            return 0;
        }
    }
    return end;
}

/* pinyin._parsed of letters and apostrophes: whether there is a way */
INLINE int spelt(const Syllables *self, const void *data, Py_ssize_t at, Py_ssize_t end, const int kind)
{
    while (is_apostrophe(PyUnicode_READ(kind, data, end - 1)))
        end--;
    uint8_t reached[TOKEN + 1] = {1};
    for (Py_ssize_t i = at; i < end; i++) {
        if (!reached[i - at])
            continue;
        if (i > at && is_apostrophe(PyUnicode_READ(kind, data, i))) {
            reached[i - at + 1] = 1;
            continue;
        }
        uint16_t node = 0;
        for (Py_ssize_t j = i; j < end && j < i + SYLLABLE; j++) {
            const Py_UCS4 c = PyUnicode_READ(kind, data, j);
            if (!is_letter(c) || !(node = self->nodes[node].next[c - 'a']))
                break;
            if (self->nodes[node].what == PLAIN)
                reached[j - at + 1] = 1;
        }
    }
    return reached[end - at];
}

INLINE PyObject *tokens(const Syllables *self, PyObject *text, const int kind)
{
    const void *data = PyUnicode_DATA(text);
    const Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    PyObject *found = NULL;
    Py_ssize_t barred = 0;
    for (Py_ssize_t i = 0; i < size;) {
        if (!is_letter(PyUnicode_READ(kind, data, i))) {
            i++;
            continue;
        }
        int known = 0;
        Py_ssize_t end = i < barred ? 0 : toned(self, data, size, i, &known, &barred, kind);
        if (!end) {
            end = i + 1;
            while (end < size && (is_letter(PyUnicode_READ(kind, data, end)) || is_apostrophe(PyUnicode_READ(kind, data, end))))
                end++;
            known = end - i > 1 && end - i <= TOKEN && spelt(self, data, i, end, kind);
        }
        if (known && end - i <= TOKEN && put(&found, Py_BuildValue("(nn)", i, end)) < 0)
            return made_of(found, 1);
        i = end;
    }
    return made_of(found, 0);
}

static PyObject *Syllables_tokens(Syllables *self, PyObject *text)
{
    if (!PyUnicode_Check(text) || !self->nodes)
        return PyErr_Format(PyExc_TypeError, "tokens(text)");
    BY_KIND(text, tokens(self, text, kind))
}

static PyMethodDef Syllables_methods[] = {
    {"tokens", (PyCFunction)Syllables_tokens, METH_O, "(start, end) of every Latin token that is pinyin, or None."},
    {NULL},
};

static PyTypeObject SyllablesType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "app._views.Syllables",
    .tp_doc = "Syllables(names): of each, whether it is one only where its tone is written.",
    .tp_basicsize = sizeof(Syllables),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Syllables_init,
    .tp_dealloc = (destructor)Syllables_dealloc,
    .tp_methods = Syllables_methods,
};

/* ---- codes (codes.py) */

enum { LOWER = 1, UPPER = 2, SIGN = 4, HEX = 8, APART = 16 }; /* SIGN: digits, + and / ; `-` and `_` count as lower */
#define IN64 (LOWER | UPPER | SIGN)

static uint8_t classes[128];

static void classify(void)
{
    for (int c = 'a'; c <= 'z'; c++)
        classes[c] = LOWER, classes[c - 32] = UPPER;
    for (const char *c = "-_"; *c; c++)
        classes[(int)*c] = LOWER;
    for (const char *c = "0123456789+/"; *c; c++)
        classes[(int)*c] = SIGN;
    for (const char *c = "0123456789abcdefABCDEF"; *c; c++)
        classes[(int)*c] |= HEX;
    for (const char *c = " ,:"; *c; c++)
        classes[(int)*c] = APART;
}

#define CLASS(i) ((i) < size && PyUnicode_READ(kind, data, i) < 128 ? classes[PyUnicode_READ(kind, data, i)] : 0)

/* Base64 that is not ruled out by its letters, or that the end cuts off. */
INLINE int base64(PyObject **found, const void *data, Py_ssize_t size, const int kind)
{
    for (Py_ssize_t i = 0; i < size;) {
        if (!(CLASS(i) & IN64)) {
            i++;
            continue;
        }
        const Py_ssize_t start = i;
        int before = 0, mixed = 0;
        for (uint8_t now; (now = CLASS(i)) & IN64; i++) {
            mixed |= (now & UPPER && before & (LOWER | SIGN)) || (now & SIGN && before & UPPER);
            before = now;
        }
        if (i - start < 6)
            continue;
        for (int k = 0; k < 2 && i < size && PyUnicode_READ(kind, data, i) == '='; k++)
            i++;
        if ((mixed || i == size) && put(found, Py_BuildValue("(nn)", start, i)) < 0)
            return -1;
    }
    return 0;
}

/* Two hexadecimal digits, 0x before them or not, and up to two characters apart: where that ends, 0 if it does not stand at i. */
INLINE Py_ssize_t octet(const void *data, Py_ssize_t size, Py_ssize_t i, const int kind)
{
    if (CLASS(i) & HEX && i + 1 < size && PyUnicode_READ(kind, data, i) == '0' &&
        (PyUnicode_READ(kind, data, i + 1) | 32) == 'x')
        i += 2;
    if (!(CLASS(i) & HEX) || !(CLASS(i + 1) & HEX))
        return 0;
    i += 2;
    for (int k = 0; k < 2 && CLASS(i) & APART; k++)
        i++;
    return i;
}

INLINE int hexadecimal(PyObject **found, const void *data, Py_ssize_t size, const int kind)
{
    for (Py_ssize_t i = 0; i < size;) {
        Py_ssize_t end = i, next;
        int many = 0;
        for (; many < 401 && (next = octet(data, size, end, kind)); many++)
            end = next;
        if (many < 4) {
            i++;
            continue;
        }
        if (put(found, Py_BuildValue("(nn)", i, end)) < 0)
            return -1;
        i = end;
    }
    return 0;
}

INLINE int tags(PyObject **found, const void *data, Py_ssize_t size, const int kind)
{
    for (Py_ssize_t i = 0; i < size; i++) {
        const Py_ssize_t start = i;
        while (i < size && (Py_UCS4)(PyUnicode_READ(kind, data, i)) - 0xE0020u <= 0x5Eu)
            i++;
        if (i - start >= 3 && put(found, Py_BuildValue("(nn)", start, i)) < 0)
            return -1;
    }
    return 0;
}

INLINE PyObject *look(PyObject *text, const int kind)
{
    const void *data = PyUnicode_DATA(text);
    const Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    PyObject *found[3] = {NULL, NULL, NULL}, *made = NULL;
    if (base64(&found[0], data, size, kind) == 0 && hexadecimal(&found[1], data, size, kind) == 0 &&
        (kind != PyUnicode_4BYTE_KIND || tags(&found[2], data, size, kind) == 0)) {
        if (!found[0] && !found[1] && !found[2])
            return Py_NewRef(Py_None);
        made = PyTuple_Pack(3, found[0] ? found[0] : Py_None, found[1] ? found[1] : Py_None, found[2] ? found[2] : Py_None);
    }
    for (int i = 0; i < 3; i++)
        Py_XDECREF(found[i]);
    return made;
}

static PyObject *codes(PyObject *module, PyObject *text)
{
    if (!PyUnicode_Check(text))
        return PyErr_Format(PyExc_TypeError, "codes(text)");
    BY_KIND(text, look(text, kind))
}

static PyMethodDef methods[] = {
    {"codes", codes, METH_O,
     "codes(text): (start, end) of what may be base64, hexadecimal and tag characters, a list or None for each; None for none."},
    {NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "app._views", NULL, 0, methods};

PyMODINIT_FUNC PyInit__views(void)
{
    classify();
    if (PyType_Ready(&DrawnType) < 0 || PyType_Ready(&SyllablesType) < 0)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (!made || PyModule_AddObjectRef(made, "Drawn", (PyObject *)&DrawnType) < 0 ||
        PyModule_AddObjectRef(made, "Syllables", (PyObject *)&SyllablesType) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
