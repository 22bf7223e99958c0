/* The inner loops of text.py, automaton.py, ends.py and views.py, in C: mapping characters, finding patterns in what they map to,
   and what of a text's end may still become one.

   Law: answers exactly as the Python beside it does (tests/unit/test_native.py holds the two against each other); holds no
   state between calls, copies nothing of a text but what it returns, and trusts only arrays that `build` made.

   Character maps are arrays of 32-bit numbers by code point: UNKNOWN (ask Python, which fills the place in), GONE, SEVERAL
   (with the place and number of the characters in a pool), or the character itself. The automaton is Aho-Corasick in a double
   array: the child of state s by letter a is t = base[s] + a if check[t] == s. Letters number the characters that stand in
   patterns; state 0 is the root, whose children are a table by themselves. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define UNKNOWN 0u
#define GONE 1u
#define SEVERAL 0x80000000u /* | place << 5 | number */
#define INLINE static inline __attribute__((always_inline))
#define ROOM 1024 /* characters whose places fit on the stack */

/* ---- maps */

typedef struct {
    PyObject_HEAD
    Py_buffer codes, pool;
    uint32_t beyond; /* for code points past the array */
    int runs;        /* a run of one character counts once */
} Map;

static int Map_init(Map *self, PyObject *args, PyObject *kwargs)
{
    PyObject *codes, *pool;
    if (!PyArg_ParseTuple(args, "OOIp", &codes, &pool, &self->beyond, &self->runs))
        return -1;
    if (self->codes.obj || self->pool.obj) {
        PyErr_SetString(PyExc_TypeError, "a map is made once");
        return -1;
    }
    if (PyObject_GetBuffer(codes, &self->codes, PyBUF_C_CONTIGUOUS) < 0)
        return -1;
    return PyObject_GetBuffer(pool, &self->pool, PyBUF_C_CONTIGUOUS);
}

static void Map_dealloc(Map *self)
{
    if (self->codes.obj)
        PyBuffer_Release(&self->codes);
    if (self->pool.obj)
        PyBuffer_Release(&self->pool);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

INLINE uint32_t mapped(const Map *map, Py_UCS4 c)
{
    size_t size = (size_t)map->codes.len / sizeof(uint32_t);
    return c < size ? ((const uint32_t *)map->codes.buf)[c] : map->beyond;
}

INLINE PyObject *apply(const Map *map, PyObject *text, const int kind)
{
    const void *data = PyUnicode_DATA(text);
    const Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    const uint32_t *pool = map->pool.buf;
    Py_ssize_t i = 0, n;
    uint32_t last = UNKNOWN;
    for (; i < size; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        uint32_t v = mapped(map, c);
        if (v != c || v <= GONE || (map->runs && v == last))
            break;
        last = v;
    }
    if (i == size)
        return Py_NewRef(text);
    Py_UCS4 small[ROOM], *out = small, most = 127;
    Py_ssize_t room = ROOM;
    for (n = 0; n < i; n++) {
        if (n == room) {
            room = 2 * size + 64;
            if (!(out = PyMem_Malloc(room * sizeof(Py_UCS4))))
                return PyErr_NoMemory();
            memcpy(out, small, n * sizeof(Py_UCS4));
        }
        out[n] = PyUnicode_READ(kind, data, n);
        most |= out[n];
    }
    PyObject *made = NULL;
    for (; i < size; i++) {
        uint32_t v = mapped(map, PyUnicode_READ(kind, data, i)), many = 1;
        const uint32_t *from = &v;
        if (v == UNKNOWN) {
            made = Py_NewRef(Py_None);
            goto done;
        }
        if (v == GONE || (map->runs && v == last))
            continue;
        last = v;
        if (v & SEVERAL) {
            many = v & 31;
            from = pool + ((v & ~SEVERAL) >> 5);
        }
        if (n + 32 > room) {
            Py_ssize_t more = 2 * room + size;
            Py_UCS4 *wider = PyMem_Malloc(more * sizeof(Py_UCS4));
            if (!wider) {
                PyErr_NoMemory();
                goto done;
            }
            memcpy(wider, out, n * sizeof(Py_UCS4));
            if (out != small)
                PyMem_Free(out);
            out = wider, room = more;
        }
        for (uint32_t k = 0; k < many; k++)
            most |= out[n++] = from[k];
    }
    if ((made = PyUnicode_New(n, most > 0x10FFFF ? 0x10FFFF : most))) {
        const int to = PyUnicode_KIND(made);
        void *place = PyUnicode_DATA(made);
        if (to == PyUnicode_1BYTE_KIND)
            for (Py_ssize_t k = 0; k < n; k++)
                ((Py_UCS1 *)place)[k] = (Py_UCS1)out[k];
        else if (to == PyUnicode_2BYTE_KIND)
            for (Py_ssize_t k = 0; k < n; k++)
                ((Py_UCS2 *)place)[k] = (Py_UCS2)out[k];
        else
            memcpy(place, out, n * sizeof(Py_UCS4));
    }
done:
    if (out != small)
        PyMem_Free(out);
    return made;
}

static PyObject *Map_apply(Map *self, PyObject *text)
{
    if (!PyUnicode_Check(text))
        return PyErr_Format(PyExc_TypeError, "a text, not %.100s", Py_TYPE(text)->tp_name);
    switch (PyUnicode_KIND(text)) {
    case PyUnicode_1BYTE_KIND:
        return apply(self, text, PyUnicode_1BYTE_KIND);
    case PyUnicode_2BYTE_KIND:
        return apply(self, text, PyUnicode_2BYTE_KIND);
    default:
        return apply(self, text, PyUnicode_4BYTE_KIND);
    }
}

INLINE PyObject *places(const Map *map, PyObject *text, const int kind)
{
    const void *data = PyUnicode_DATA(text);
    const Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    PyObject *made = PyList_New(0);
    uint32_t last = UNKNOWN;
    for (Py_ssize_t i = 0; made && i < size; i++) {
        const uint32_t v = mapped(map, PyUnicode_READ(kind, data, i));
        if (v == UNKNOWN) {
            Py_DECREF(made);
            return Py_NewRef(Py_None);
        }
        if (v == GONE || (map->runs && v == last))
            continue;
        last = v;
        PyObject *place = PyLong_FromSsize_t(i);
        for (uint32_t many = v & SEVERAL ? v & 31 : 1; place && many; many--)
            if (PyList_Append(made, place) < 0)
                Py_CLEAR(place);
        if (!place)
            Py_CLEAR(made);
        Py_XDECREF(place);
    }
    return made;
}

static PyObject *Map_places(Map *self, PyObject *text)
{
    if (!PyUnicode_Check(text))
        return PyErr_Format(PyExc_TypeError, "a text, not %.100s", Py_TYPE(text)->tp_name);
    switch (PyUnicode_KIND(text)) {
    case PyUnicode_1BYTE_KIND:
        return places(self, text, PyUnicode_1BYTE_KIND);
    case PyUnicode_2BYTE_KIND:
        return places(self, text, PyUnicode_2BYTE_KIND);
    default:
        return places(self, text, PyUnicode_4BYTE_KIND);
    }
}

static PyMethodDef Map_methods[] = {
    {"apply", (PyCFunction)Map_apply, METH_O, "The text with its characters replaced, or None if one is unknown."},
    {"places", (PyCFunction)Map_places, METH_O, "For each character of `apply`, the index of the one it comes from, or None."},
    {NULL},
};

static PyTypeObject MapType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "app._scan.Map",
    .tp_doc = "Map(codes, pool, beyond, runs): characters by code point.",
    .tp_basicsize = sizeof(Map),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Map_init,
    .tp_dealloc = (destructor)Map_dealloc,
    .tp_methods = Map_methods,
};

/* ---- the automaton */

typedef struct {
    int32_t base, check, fail, out;
} State;

typedef struct {
    int32_t number, length, next; /* next: the output of the longest proper suffix that has one; 0: none */
} Output;

typedef struct {
    PyObject_HEAD
    Py_buffer states, depths, roots, letters, outputs;
} Automaton;

static int Automaton_init(Automaton *self, PyObject *args, PyObject *kwargs)
{
    PyObject *given[5];
    Py_buffer *views[5] = {&self->states, &self->depths, &self->roots, &self->letters, &self->outputs};
    if (!PyArg_ParseTuple(args, "OOOOO", &given[0], &given[1], &given[2], &given[3], &given[4]))
        return -1;
    for (int i = 0; i < 5; i++) {
        if (views[i]->obj) {
            PyErr_SetString(PyExc_TypeError, "an automaton is made once");
            return -1;
        }
        if (PyObject_GetBuffer(given[i], views[i], PyBUF_C_CONTIGUOUS) < 0)
            return -1;
    }
    return 0;
}

static void Automaton_dealloc(Automaton *self)
{
    Py_buffer *views[5] = {&self->states, &self->depths, &self->roots, &self->letters, &self->outputs};
    for (int i = 0; i < 5; i++)
        if (views[i]->obj)
            PyBuffer_Release(views[i]);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* (number, the places of its characters) */
static int tell(PyObject **hits, const Output *o, const int32_t *places)
{
    if (!*hits && !(*hits = PyList_New(0)))
        return -1;
    PyObject *where = PyTuple_New(o->length);
    if (!where)
        return -1;
    for (int32_t j = 0; j < o->length; j++) {
        PyObject *place = PyLong_FromLong(places[j]);
        if (!place) {
            Py_DECREF(where);
            return -1;
        }
        PyTuple_SET_ITEM(where, j, place);
    }
    PyObject *hit = Py_BuildValue("(iN)", o->number, where);
    if (!hit)
        return -1;
    int failed = PyList_Append(*hits, hit);
    Py_DECREF(hit);
    return failed;
}

/* What of the end may still become a pattern: (places from the longest live suffix on, where in them each begins). */
static PyObject *alive(const State *states, const uint16_t *depths, int32_t s, const int32_t *places, Py_ssize_t n)
{
    Py_ssize_t longest = 0, count = 0;
    for (int32_t t = s; t; t = states[t].fail)
        if (states[t].base) {
            if (!longest)
                longest = depths[t];
            count++;
        }
    if (!longest)
        return Py_NewRef(Py_None);
    PyObject *tail = PyTuple_New(longest), *starts = PyTuple_New(count), *made = NULL;
    if (!tail || !starts)
        goto done;
    for (Py_ssize_t j = 0; j < longest; j++) {
        PyObject *place = PyLong_FromLong(places[n - longest + j]);
        if (!place)
            goto done;
        PyTuple_SET_ITEM(tail, j, place);
    }
    Py_ssize_t j = 0;
    for (int32_t t = s; t; t = states[t].fail)
        if (states[t].base) {
            PyObject *start = PyLong_FromLong((long)(longest - depths[t]));
            if (!start)
                goto done;
            PyTuple_SET_ITEM(starts, j++, start);
        }
    made = PyTuple_Pack(2, tail, starts);
done:
    Py_XDECREF(tail);
    Py_XDECREF(starts);
    return made;
}

/* ---- the end of a text (app/ends.py says what is asked and why) */

#define REPEATS_MOST 63

typedef struct {
    PyObject_HEAD
    PyObject *terms, *breaks, *map, *leet; /* Automaton, Automaton or None, Map, str */
    Py_ssize_t gap, repeats, run;
} Ends;

typedef struct {
    const void *data;
    Py_ssize_t size;
    const Map *map;
    int kind;
} Text;

INLINE Py_UCS4 char_at(const Text *text, Py_ssize_t i)
{
    return PyUnicode_READ(text->kind, text->data, i);
}

INLINE int is_noise(const Text *text, Py_ssize_t i)
{
    return mapped(text->map, char_at(text, i)) == GONE;
}

INLINE int is_word(Py_UCS4 c)
{
    return c < 0x2E80 && Py_UNICODE_ISALNUM(c);
}

/* A letter or digit, or a sign for one. */
static int is_sign(const Ends *ends, Py_UCS4 c)
{
    return is_word(c) || PyUnicode_FindChar(ends->leet, c, 0, PyUnicode_GET_LENGTH(ends->leet), 1) >= 0;
}

/* No match reaches over text[begin:stop]: noise, and repeats of the character before it. */
static int spans(const Ends *ends, const Text *text, Py_ssize_t begin, Py_ssize_t stop)
{
    Py_ssize_t noise = 0, repeats = 0;
    for (Py_ssize_t i = begin; i < stop; i++) {
        if (is_noise(text, i))
            noise++;
        else
            noise = 0, repeats++;
        if (noise > ends->gap || repeats > ends->repeats)
            return 1;
    }
    return 0;
}

/* From where on a match that begins in the run text[begin:stop] reaches to its end; `stop` if none does. */
static Py_ssize_t last_part(const Ends *ends, const Text *text, Py_ssize_t begin, Py_ssize_t stop)
{
    Py_ssize_t noise = 0;
    for (Py_ssize_t i = stop; i-- > begin;) {
        noise = is_noise(text, i) ? noise + 1 : 0;
        if (noise > ends->gap)
            return i + noise;
    }
    return begin;
}

/* At the places stand letters of which some touch, and then a space: no term goes on from there, but one of `breaks`. */
static int shut(const Ends *ends, const Text *text, const int32_t *places, Py_ssize_t count)
{
    const Automaton *breaks = ends->breaks == Py_None ? NULL : (const Automaton *)ends->breaks;
    int touch = 0;
    int32_t s = breaks ? 0 : -1; /* what stands so far, if something begins with it */
    for (Py_ssize_t k = 0; k < count; k++) {
        const Py_UCS4 c = char_at(text, places[k]);
        if (c < 'a' || c > 'z')
            return 0;
        int broken = 0; /* a term may be broken off here */
        if (s >= 0) {
            const State *states = breaks->states.buf;
            const uint32_t v = mapped(text->map, c);
            const uint32_t a = v < (size_t)breaks->letters.len / sizeof(uint32_t) ? ((const uint32_t *)breaks->letters.buf)[v] : 0;
            int32_t t = a ? s ? states[s].base + (int32_t)a : ((const int32_t *)breaks->roots.buf)[a] : 0;
            s = t && states[t].check == s ? t : -1;
            broken = s >= 0 && ((const Output *)breaks->outputs.buf)[states[s].out].length == k + 1;
        }
        const Py_ssize_t next = k + 1 < count ? places[k + 1] : text->size;
        if (next == places[k] + 1)
            touch = touch || (k + 1 < count && !broken);
        else if (touch && !broken) {
            int noise = 1, space = 0;
            for (Py_ssize_t i = places[k] + 1; noise && i < next; i++) {
                noise = is_noise(text, i);
                space = space || Py_UNICODE_ISSPACE(char_at(text, i));
            }
            if (noise && space)
                return 1;
        }
    }
    return 0;
}

/* Start of the longest suffix that may still become a term: s is the state at the end, `places` those of the n characters read. */
static Py_ssize_t hold_of(const Ends *ends, const Text *text, int32_t s, const int32_t *places, Py_ssize_t n)
{
    const State *states = ((const Automaton *)ends->terms)->states.buf;
    const uint16_t *depths = ((const Automaton *)ends->terms)->depths.buf;
    while (s && !states[s].base)
        s = states[s].fail;
    if (!s)
        return text->size;
    const Py_ssize_t longest = depths[s];
    places += n - longest;
    if (text->size - places[0] == longest && char_at(text, places[0]) >= 0x2E80)
        return places[0]; /* nothing between, and no word goes on into it */
    /* From the end back to the first gap that no match can span. */
    Py_ssize_t reach = 0, after = text->size, begin = -1;
    if (after - places[0] > longest)
        for (reach = longest; reach; reach--) {
            const Py_ssize_t place = places[reach - 1];
            if (after - place - 1 > ends->gap && spans(ends, text, place + 1, after)) {
                /* What is too long a run to stand in a term may still end in the first characters of one. */
                begin = last_part(ends, text, place, after);
                reach -= begin < after;
                break;
            }
            after = place;
        }
    for (; s; s = states[s].fail) {
        const Py_ssize_t first = longest - depths[s];
        if (!states[s].base || first < reach || shut(ends, text, places + first, longest - first))
            continue;
        /* Where a match may begin: the first and the last characters of a run, the last first. */
        const Py_ssize_t from = first == reach && begin >= 0 ? begin : places[first];
        const Py_ssize_t stop = first + 1 < longest ? places[first + 1] : text->size;
        Py_ssize_t starts[REPEATS_MOST + 1], count = 0;
        if (stop - from <= 1)
            starts[count++] = from;
        else
            for (Py_ssize_t i = stop; i-- > from && count <= ends->repeats;)
                if (!is_noise(text, i))
                    starts[count++] = i;
        if (count > ends->run && !is_sign(ends, char_at(text, starts[0])))
            count = ends->run;
        while (count--) {
            /* In the middle of a Latin word no term can start: it would fail its left boundary. A digit may stand for 二. */
            const Py_ssize_t start = starts[count];
            const Py_UCS4 c = char_at(text, start);
            if (!(start && is_word(char_at(text, start - 1)) && is_sign(ends, c)) || Py_UNICODE_ISDECIMAL(c))
                return start;
        }
    }
    return text->size;
}

INLINE PyObject *scan(const Automaton *self, PyObject *text, const Map *map, Py_ssize_t since, int live, const Ends *ends,
                      const int kind)
{
    const State *states = self->states.buf;
    const int32_t *roots = self->roots.buf;
    const uint32_t *letters = self->letters.buf;
    const size_t known = (size_t)self->letters.len / sizeof(uint32_t);
    const Output *outputs = self->outputs.buf;
    const void *data = PyUnicode_DATA(text);
    const Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    const int runs = map && map->runs;
    int32_t small[ROOM], *places = small;
    if (since < 0 || since > size)
        since = size;
    if (size > INT32_MAX)
        return PyErr_Format(PyExc_ValueError, "a text of %zd characters", size);
    if (size - since > ROOM && !(places = PyMem_Malloc((size - since) * sizeof(int32_t))))
        return PyErr_NoMemory();
    PyObject *hits = NULL, *tail = NULL, *made = NULL;
    Py_ssize_t n = 0;
    uint32_t last = UNKNOWN;
    int32_t s = 0;
    for (Py_ssize_t i = since; i < size; i++) {
        uint32_t v = PyUnicode_READ(kind, data, i);
        if (map) {
            v = mapped(map, v);
            if (v == GONE)
                continue;
            if (v == UNKNOWN) {
                made = Py_NewRef(Py_False);
                goto done;
            }
            if (runs && v == last)
                continue;
            last = v;
        }
        places[n++] = (int32_t)i;
        const uint32_t a = v < known ? letters[v] : 0;
        if (!a) {
            s = 0;
            continue;
        }
        for (;;) {
            if (!s) {
                s = roots[a];
                break;
            }
            const int32_t t = states[s].base + (int32_t)a;
            if (states[t].check == s) {
                s = t;
                break;
            }
            s = states[s].fail;
        }
        for (int32_t o = states[s].out; o; o = outputs[o].next)
            if (tell(&hits, &outputs[o], places + n - outputs[o].length) < 0)
                goto done;
    }
    if (ends) {
        const Text whole = {data, size, map, kind};
        const Py_ssize_t hold = hold_of(ends, &whole, s, places, n);
        if (hits || (hits = PyList_New(0)))
            made = Py_BuildValue("(On)", hits, hold);
    } else if (live) {
        if (!(tail = alive(states, self->depths.buf, s, places, n)))
            goto done;
        if (!hits && tail == Py_None)
            made = Py_NewRef(Py_None);
        else
            made = PyTuple_Pack(2, hits ? hits : Py_None, tail);
    } else
        made = Py_NewRef(hits ? hits : Py_None);
done:
    Py_XDECREF(hits);
    Py_XDECREF(tail);
    if (places != small)
        PyMem_Free(places);
    return made;
}

static PyObject *Automaton_scan(Automaton *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 4 || !PyUnicode_Check(args[0]) || !(args[1] == Py_None || Py_TYPE(args[1]) == &MapType) ||
        !PyLong_Check(args[2]))
        return PyErr_Format(PyExc_TypeError, "scan(text, map or None, since, live)");
    const Map *map = args[1] == Py_None ? NULL : (const Map *)args[1];
    const Py_ssize_t since = PyLong_AsSsize_t(args[2]);
    if (since == -1 && PyErr_Occurred())
        return NULL;
    const int live = args[3] == Py_True;
    switch (PyUnicode_KIND(args[0])) {
    case PyUnicode_1BYTE_KIND:
        return scan(self, args[0], map, since, live, NULL, PyUnicode_1BYTE_KIND);
    case PyUnicode_2BYTE_KIND:
        return scan(self, args[0], map, since, live, NULL, PyUnicode_2BYTE_KIND);
    default:
        return scan(self, args[0], map, since, live, NULL, PyUnicode_4BYTE_KIND);
    }
}

static PyMethodDef Automaton_methods[] = {
    {"scan", (PyCFunction)(void (*)(void))Automaton_scan, METH_FASTCALL,
     "scan(text, map, since, live): the hits, or with `live` (hits, live suffixes); None where there is nothing, False "
     "where a character is unknown."},
    {NULL},
};

static PyTypeObject AutomatonType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "app._scan.Automaton",
    .tp_doc = "Automaton(states, depths, roots, letters, outputs): as `build` makes them.",
    .tp_basicsize = sizeof(Automaton),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Automaton_init,
    .tp_dealloc = (destructor)Automaton_dealloc,
    .tp_methods = Automaton_methods,
};

static int Ends_init(Ends *self, PyObject *args, PyObject *kwargs)
{
    PyObject *terms, *breaks, *map, *leet;
    if (!PyArg_ParseTuple(args, "O!OO!Unnn", &AutomatonType, &terms, &breaks, &MapType, &map, &leet, &self->gap, &self->repeats,
                          &self->run))
        return -1;
    if (self->terms || !(breaks == Py_None || Py_TYPE(breaks) == &AutomatonType) || self->gap < 0 || self->repeats < 0 ||
        self->repeats > REPEATS_MOST || self->run < 1) {
        PyErr_SetString(PyExc_TypeError, "ends are made once, of an automaton or none, and of numbers in their bounds");
        return -1;
    }
    self->terms = Py_NewRef(terms), self->breaks = Py_NewRef(breaks);
    self->map = Py_NewRef(map), self->leet = Py_NewRef(leet);
    return 0;
}

static void Ends_dealloc(Ends *self)
{
    Py_XDECREF(self->terms);
    Py_XDECREF(self->breaks);
    Py_XDECREF(self->map);
    Py_XDECREF(self->leet);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *Ends_look(Ends *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyUnicode_Check(args[0]) || !PyLong_Check(args[1]) || !self->terms)
        return PyErr_Format(PyExc_TypeError, "look(text, since)");
    const Py_ssize_t since = PyLong_AsSsize_t(args[1]);
    if (since == -1 && PyErr_Occurred())
        return NULL;
    const Automaton *terms = (const Automaton *)self->terms;
    const Map *map = (const Map *)self->map;
    switch (PyUnicode_KIND(args[0])) {
    case PyUnicode_1BYTE_KIND:
        return scan(terms, args[0], map, since, 0, self, PyUnicode_1BYTE_KIND);
    case PyUnicode_2BYTE_KIND:
        return scan(terms, args[0], map, since, 0, self, PyUnicode_2BYTE_KIND);
    default:
        return scan(terms, args[0], map, since, 0, self, PyUnicode_4BYTE_KIND);
    }
}

static PyMethodDef Ends_methods[] = {
    {"look", (PyCFunction)(void (*)(void))Ends_look, METH_FASTCALL,
     "look(text, since): (the hits, where what may still become a term begins), or False where a character is unknown."},
    {NULL},
};

static PyTypeObject EndsType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "app._scan.Ends",
    .tp_doc = "Ends(terms, breaks or None, map, leet, gap, repeats, run): as app/ends.py says.",
    .tp_basicsize = sizeof(Ends),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Ends_init,
    .tp_dealloc = (destructor)Ends_dealloc,
    .tp_methods = Ends_methods,
};

/* ---- building an automaton */

typedef struct {
    int32_t state, first, last; /* patterns[first:last], sorted, begin with what leads to the state */
    uint16_t depth;
} Node;

typedef struct {
    uint32_t letter;
    int32_t first, last;
} Child;

typedef struct {
    State *states;
    uint16_t *depths;
    int32_t size, room;  /* size: all places from here on are free */
    int32_t rover;       /* the free place where the search goes on */
    int32_t open, close; /* the free places from letter `alphabet` on, each with the next (base) and the one before (fail) */
    uint32_t alphabet;
} Array;

#define FREE -1
/* Free places tried for several children before they get places at the end: few nodes have many children, and they go first. */
#define TRIED(count) ((count) > 8 ? 32768 : 512)

static int reserve(Array *array, int64_t least)
{
    if (least <= array->room)
        return 0;
    const int64_t room = array->room * 2LL > least ? array->room * 2LL : least;
    if (room > INT32_MAX)
        return -1;
    State *states = realloc(array->states, room * sizeof(State));
    if (!states)
        return -1;
    array->states = states;
    uint16_t *depths = realloc(array->depths, room * sizeof(uint16_t));
    if (!depths)
        return -1;
    array->depths = depths;
    memset(depths + array->room, 0, (room - array->room) * sizeof(uint16_t));
    for (int64_t i = array->room; i < room; i++) {
        states[i] = (State){FREE, FREE, FREE, 0};
        /* A base is at least 1, so what lies below the largest letter is of no use to it. */
        if (i <= array->alphabet)
            continue;
        states[i].fail = array->close;
        if (array->close != FREE)
            states[array->close].base = (int32_t)i;
        else
            array->open = (int32_t)i;
        array->close = (int32_t)i;
    }
    array->room = (int32_t)room;
    return 0;
}

static void take(Array *array, int32_t at, int32_t parent)
{
    State *state = &array->states[at];
    if (array->rover == at)
        array->rover = state->base;
    if (state->fail != FREE)
        array->states[state->fail].base = state->base;
    else
        array->open = state->base;
    if (state->base != FREE)
        array->states[state->base].fail = state->fail;
    else
        array->close = state->fail;
    *state = (State){0, parent, 0, 0};
    if (at >= array->size)
        array->size = at + 1;
}

/* A base for which all the children's places are free, or -1. */
static int32_t place(Array *array, const Child *children, int32_t count)
{
    if (reserve(array, (int64_t)array->size + 2LL * array->alphabet + 2) < 0)
        return -1;
    if (count == 1) {
        /* One child fits anywhere: in the first hole that others left. */
        if (array->open < array->size)
            return array->open - (int32_t)children[0].letter;
        return array->size - (int32_t)children[0].letter;
    }
    /* From where the last search ended: the first holes are those that nothing fits. */
    for (int tried = 0; tried < TRIED(count); tried++) {
        if (array->rover == FREE || array->rover >= array->size)
            array->rover = array->open;
        if (array->rover >= array->size)
            break;
        const int32_t base = array->rover - (int32_t)children[0].letter;
        int32_t k = 1;
        while (k < count && base + (int64_t)children[k].letter > array->alphabet &&
               array->states[base + children[k].letter].check == FREE)
            k++;
        if (k == count)
            return base;
        array->rover = array->states[array->rover].base;
    }
    uint32_t least = children[0].letter;
    for (int32_t k = 1; k < count; k++)
        least = children[k].letter < least ? children[k].letter : least;
    return array->size - (int32_t)least;
}

INLINE int32_t step(const State *states, const int32_t *roots, int32_t s, uint32_t a)
{
    for (;;) {
        if (!s)
            return roots[a];
        const int32_t t = states[s].base + (int32_t)a;
        if (states[t].check == s)
            return t;
        s = states[s].fail;
    }
}

/* 0, or -1 when memory ran out. All without the interpreter. */
static int construct(const uint32_t *text, const int64_t *ends, int32_t count, Array *array, int32_t *roots,
                     Output **outputs, int32_t *told)
{
    const int64_t total = count ? ends[count - 1] : 0;
    int failed = -1;
    Node *queue = malloc((total + 1) * sizeof(Node));
    Child *children = malloc((array->alphabet + 1) * sizeof(Child));
    *outputs = malloc((count + 1) * sizeof(Output));
    if (!queue || !children || !*outputs || reserve(array, 2LL * array->alphabet + 2) < 0)
        goto done;
    array->states[0] = (State){0, 0, 0, 0};
    array->size = (int32_t)array->alphabet + 1;
    (*outputs)[0] = (Output){0, 0, 0};
    *told = 1;
    int64_t head = 0, tail = 0;
    queue[tail++] = (Node){0, 0, count, 0};
    while (head < tail) {
        const Node node = queue[head++];
        int32_t at = node.first, kids = 0;
        State *state = &array->states[node.state];
        if (node.depth) {
            /* Sorted: what ends here comes first. Patterns are distinct, so at most one does. */
            state->out = array->states[state->fail].out;
            if (ends[at] - (at ? ends[at - 1] : 0) == node.depth) {
                (*outputs)[*told] = (Output){at, node.depth, state->out};
                state->out = (*told)++;
                at++;
            }
        }
        while (at < node.last) {
            Child child = {text[(at ? ends[at - 1] : 0) + node.depth], at, at + 1};
            while (child.last < node.last && text[ends[child.last - 1] + node.depth] == child.letter)
                child.last++;
            children[kids++] = child;
            at = child.last;
        }
        if (!kids)
            continue;
        const int32_t base = place(array, children, kids);
        if (base < 0)
            goto done;
        if (node.depth)
            array->states[node.state].base = base;
        for (int32_t k = 0; k < kids; k++) {
            const uint32_t a = children[k].letter;
            const int32_t t = base + (int32_t)a;
            take(array, t, node.state);
            array->depths[t] = node.depth + 1;
            if (!node.depth)
                roots[a] = t;
            queue[tail++] = (Node){t, children[k].first, children[k].last, node.depth + 1};
        }
        /* The states that others fall back to are less deep, so they stand already. */
        for (int32_t k = 0; node.depth && k < kids; k++)
            array->states[base + (int32_t)children[k].letter].fail =
                step(array->states, roots, array->states[node.state].fail, children[k].letter);
    }
    /* Every base + letter lies within; what is free has no children. */
    if (reserve(array, (int64_t)array->size + array->alphabet + 1) < 0)
        goto done;
    array->size += (int32_t)array->alphabet + 1;
    for (int32_t i = 0; i < array->size; i++)
        if (array->states[i].check == FREE)
            array->states[i] = (State){0, FREE, 0, 0};
    failed = 0;
done:
    free(queue);
    free(children);
    return failed;
}

static PyObject *build(PyObject *module, PyObject *args)
{
    Py_buffer text, ends;
    unsigned int alphabet;
    if (!PyArg_ParseTuple(args, "y*y*I", &text, &ends, &alphabet))
        return NULL;
    PyObject *made = NULL;
    const int64_t count = ends.len / (Py_ssize_t)sizeof(int64_t);
    const int64_t *stops = ends.buf;
    for (int64_t i = 0; i < count; i++)
        if (stops[i] <= (i ? stops[i - 1] : 0) || stops[i] - (i ? stops[i - 1] : 0) > UINT16_MAX || stops[i] * (int64_t)sizeof(uint32_t) > text.len) {
            PyBuffer_Release(&text);
            PyBuffer_Release(&ends);
            return PyErr_Format(PyExc_ValueError, "pattern %lld is empty or too long", (long long)i);
        }
    Array array = {NULL, NULL, 0, 0, FREE, FREE, FREE, alphabet};
    Output *outputs = NULL;
    int32_t told = 0, *roots = calloc(alphabet + 1, sizeof(int32_t));
    int failed = !roots || count > INT32_MAX;
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        failed = construct(text.buf, ends.buf, (int32_t)count, &array, roots, &outputs, &told);
        Py_END_ALLOW_THREADS
    }
    if (failed)
        PyErr_NoMemory();
    else
        made = Py_BuildValue("(y#y#y#y#)", (char *)array.states, (Py_ssize_t)(array.size * sizeof(State)),
                             (char *)array.depths, (Py_ssize_t)(array.size * sizeof(uint16_t)), (char *)roots,
                             (Py_ssize_t)((alphabet + 1) * sizeof(int32_t)), (char *)outputs,
                             (Py_ssize_t)(told * sizeof(Output)));
    free(array.states);
    free(array.depths);
    free(outputs);
    free(roots);
    PyBuffer_Release(&text);
    PyBuffer_Release(&ends);
    return made;
}

/* ---- small things */

static PyObject *has(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyUnicode_Check(args[0]) || !PyBytes_Check(args[1]) || PyBytes_GET_SIZE(args[1]) != 128 ||
        !PyLong_Check(args[2]))
        return PyErr_Format(PyExc_TypeError, "has(text, 128 flags, since)");
    const char *flags = PyBytes_AS_STRING(args[1]);
    const int kind = PyUnicode_KIND(args[0]);
    const void *data = PyUnicode_DATA(args[0]);
    Py_ssize_t i = PyLong_AsSsize_t(args[2]);
    if (i == -1 && PyErr_Occurred())
        return NULL;
    if (i < 0)
        i = 0;
    for (; i < PyUnicode_GET_LENGTH(args[0]); i++) {
        const Py_UCS4 c = PyUnicode_READ(kind, data, i);
        if (c < 128 && flags[c])
            Py_RETURN_TRUE;
    }
    Py_RETURN_FALSE;
}

INLINE int is_plain(Py_UCS4 c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '@' || c == '$';
}

static const char MARKS[128] = {['&'] = 1, ['%'] = 1, ['\\'] = 1, ['<'] = 1, [']'] = 1, ['!'] = 1, ['+'] = 1, ['|'] = 1};

INLINE long marked(PyObject *text, Py_ssize_t since, const int kind)
{
    const void *data = PyUnicode_DATA(text);
    const Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    long found = 0;
    for (Py_ssize_t i = since; i < size; i++) {
        const Py_UCS4 c = PyUnicode_READ(kind, data, i);
        if (c >= 128 || !MARKS[c])
            continue;
        const Py_UCS4 next = i + 1 < size ? PyUnicode_READ(kind, data, i + 1) : 0;
        const int last = i + 1 == size, letter = next >= 'a' && next <= 'z';
        switch (c) {
        case '&':
            found |= last || letter || next == '#' ? 1 : 0;
            break;
        case '%':
            found |= last || (next >= '0' && next <= '9') || (next >= 'a' && next <= 'f') || next == 'u' ? 1 : 0;
            break;
        case '\\':
            found |= last || next == 'u' || next == 'x' ? 1 : 0;
            break;
        case '<':
            found |= last || letter || next == '/' || next == '!' ? 2 : 0;
            break;
        case ']':
            found |= last || next == '(' ? 2 : 0;
            break;
        case '!':
        case '+':
        case '|': {
            const Py_ssize_t start = i;
            int more = 0; /* than what ends a sentence as well */
            for (Py_UCS4 sign = c; sign == '!' || sign == '+' || sign == '|'; sign = PyUnicode_READ(kind, data, i)) {
                more |= sign != '!';
                if (++i == size)
                    break;
            }
            if (i == size || is_plain(PyUnicode_READ(kind, data, i)) ||
                (more && start && is_plain(PyUnicode_READ(kind, data, start - 1))))
                found |= 4;
            i--;
        }
        }
    }
    return found;
}

static PyObject *marks(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyUnicode_Check(args[0]) || !PyLong_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "marks(text, since)");
    Py_ssize_t since = PyLong_AsSsize_t(args[1]);
    if (since == -1 && PyErr_Occurred())
        return NULL;
    if (since < 0)
        since = 0;
    switch (PyUnicode_KIND(args[0])) {
    case PyUnicode_1BYTE_KIND:
        return PyLong_FromLong(marked(args[0], since, PyUnicode_1BYTE_KIND));
    case PyUnicode_2BYTE_KIND:
        return PyLong_FromLong(marked(args[0], since, PyUnicode_2BYTE_KIND));
    default:
        return PyLong_FromLong(marked(args[0], since, PyUnicode_4BYTE_KIND));
    }
}

static PyMethodDef methods[] = {
    {"build", build, METH_VARARGS,
     "build(letters of all patterns, their ends, number of letters): (states, depths, roots, outputs). The patterns are "
     "distinct, not empty, and sorted so that equal beginnings stand together, the shorter first."},
    {"has", (PyCFunction)(void (*)(void))has, METH_FASTCALL, "has(text, flags, since): one of the ASCII characters flagged stands there."},
    {"marks", (PyCFunction)(void (*)(void))marks, METH_FASTCALL,
     "marks(text, since): what there may be to decode (views.Marks): 1 for escapes, 2 for tags, 4 for signs as letters."},
    {NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "app._scan", NULL, 0, methods};

PyMODINIT_FUNC PyInit__scan(void)
{
    if (PyType_Ready(&MapType) < 0 || PyType_Ready(&AutomatonType) < 0 || PyType_Ready(&EndsType) < 0)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (!made || PyModule_AddObjectRef(made, "Map", (PyObject *)&MapType) < 0 ||
        PyModule_AddObjectRef(made, "Automaton", (PyObject *)&AutomatonType) < 0 ||
        PyModule_AddObjectRef(made, "Ends", (PyObject *)&EndsType) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
