/* Elementwise operators that follow each other, sixteen channels in 16 bits, strip by strip. */
#include "x86/avx2_words.h"

enum {
    STRIP = 64,                 /* pixels at a time */
    SPARE = QXR_SLOTS,          /* strips: one for each slot, and one for each operand that is widened */
    STRIPS = QXR_SLOTS + 2,
    MOST_STEPS = 24
};

enum { LOAD, THRESHOLD, RESCALE, ADD, CLIP };

/* Values of the tile or the arena, from the tile's first pixel on; null: those of a strip. */
typedef struct operand {
    qxr_words home;
    uint32_t strip;
} operand;

typedef struct step {
    int kind;
    operand a, b, y;
    int32_t lo, hi;
    uint8_t *bytes;             /* of the tile's first pixel: loaded, or the result of thresholds */
    size_t pitch;
    int32_t base;               /* of the bytes */
    union {
        qxr_word_rescale rescale;
        qxr_word_threshold threshold;
    } column;
} step;

/* Sixteen channels of a tile. */
typedef struct plan {
    const qxr_chain *chain;
    const qxr_tile *tile;
    uint32_t channel;
    operand slot[QXR_SLOTS];
    uint32_t steps;
    step step[MOST_STEPS];
} plan;

static step *add_step(plan *p, int kind, operand y)
{
    step *s = &p->step[p->steps++];
    s->kind = kind;
    s->y = y;
    s->lo = INT32_MIN;
    s->hi = INT32_MAX;
    return s;
}

static uint8_t *arena_at(const plan *p, const qxr_tensor *t)
{
    const size_t first = (size_t)p->tile->pixel * t->extent[0] + p->channel;
    return p->chain->arena + t->arena_offset + first * qxr_element_bytes(t);
}

/* In the arena, if it has words there; else in a strip. */
static operand at_home(const plan *p, const qxr_tensor *t, uint32_t strip)
{
    operand found = {{NULL, WORDS}, strip};
    if (qxr_storage(t) == QXR_I16) {
        found.home.at = (int16_t *)(void *)arena_at(p, t);
        found.home.pitch = t->extent[0];
    }
    return found;
}

/* Where input i is found; bytes of the arena are widened. 0: it has more than 16 bits. */
static int find_operand(plan *p, const qxr_op *op, uint32_t i, operand *found)
{
    const qxr_model *model = p->chain->model;
    const qxr_tensor *in = qxr_get_tensor(model, op->input[i]);
    *found = p->slot[qxr_slot(in)];
    if (op->input[i] >= qxr_get_header(model)->input_count + p->chain->group)
        return 1;
    *found = at_home(p, in, SPARE + i);
    if (qxr_storage(in) == QXR_U8) {
        step *s = add_step(p, LOAD, *found);
        s->bytes = arena_at(p, in);
        s->pitch = in->extent[0];
        s->base = qxr_base(in);
    }
    return qxr_storage(in) != QXR_I32;
}

static int32_t clamped(int32_t value, int32_t lo, int32_t hi) { return value < lo ? lo : value > hi ? hi : value; }

/* A clip of what the step before has made, and nobody else reads: its result takes the same slot. */
static int join_clip(plan *p, uint32_t index, const qxr_op *op, operand y)
{
    step *before = p->steps ? &p->step[p->steps - 1u] : NULL;
    if (!before || before->kind == THRESHOLD || before->kind == LOAD || before->y.home.at ||
        before->y.strip != y.strip || op->input[0] != qxr_get_header(p->chain->model)->input_count + index - 1u)
        return 0;
    before->lo = clamped(before->lo, op->first, op->second);
    before->hi = clamped(before->hi, op->first, op->second);
    before->y = y;
    return 1;
}

int qxr_is_read(const qxr_chain *chain, uint32_t index)
{
    const uint32_t result = qxr_get_header(chain->model)->input_count + index;
    for (uint32_t k = index + 1u; k < chain->end; k++) {
        const qxr_op *op = qxr_get_op(chain->model, k);
        if (op->input[0] == result || op->input[1] == result)
            return 1;
    }
    return 0;
}

/* Reads the constants of a step; 0 where a value does not fit. */
static int read_step(plan *p, uint32_t index, step *s, const qxr_work *work)
{
    const qxr_op *op = work->op;
    switch (op->opcode) {
    case QXR_THRESHOLD:
        s->kind = THRESHOLD;
        s->bytes = arena_at(p, work->out);
        s->pitch = work->out->extent[0];
        return !qxr_is_read(p->chain, index) && qxr_read_word_threshold(work, p->channel, &s->column.threshold);
    case QXR_RESCALE:
        s->kind = RESCALE;
        s->lo = op->first;
        s->hi = op->second;
        return qxr_read_word_rescale(work, p->channel, &s->column.rescale);
    case QXR_ADD:
        s->kind = ADD;
        return qxr_fits_words(work->in[0]) && qxr_fits_words(work->in[1]);
    case QXR_CLIP:
        s->lo = op->first;
        s->hi = op->second;
        return 1;
    default:
        return 0;
    }
}

static int plan_operator(plan *p, uint32_t index)
{
    const qxr_model *model = p->chain->model;
    const qxr_op *op = qxr_get_op(model, index);
    const qxr_tensor *out = qxr_get_tensor(model, qxr_get_header(model)->input_count + index);
    const uint32_t storage = qxr_storage(out);
    const operand y = at_home(p, out, qxr_slot(out));
    if (op->opcode != QXR_THRESHOLD && storage != QXR_VIRTUAL && storage != QXR_I16)
        return 0;
    if (op->opcode != QXR_CLIP || !join_clip(p, index, op, y)) {
        qxr_work work = {model, op, {qxr_get_tensor(model, op->input[0]), NULL}, out, p->chain->arena, {NULL, NULL}};
        operand a, b;
        step *s;
        if (!find_operand(p, op, 0, &a))
            return 0;
        b = a;
        if (op->opcode == QXR_ADD) {
            work.in[1] = qxr_get_tensor(model, op->input[1]);
            if (!find_operand(p, op, 1, &b))
                return 0;
        }
        s = add_step(p, CLIP, y);
        s->a = a;
        s->b = b;
        if (!read_step(p, index, s, &work))
            return 0;
    }
    p->slot[y.strip] = y;
    return 1;
}

typedef int16_t strip[STRIP][WORDS];

static qxr_words words_of(operand x, uint32_t done, strip *strips)
{
    qxr_words w = x.home;
    w.at = w.at ? w.at + done * w.pitch : strips[x.strip][0];
    return w;
}

/* Pixels from `done` of the tile on. */
static void run_step(const step *s, uint32_t done, uint32_t pixels, strip *strips)
{
    const qxr_words y = words_of(s->y, done, strips);
    switch (s->kind) {
    case LOAD:
        qxr_load_words(s->bytes + done * s->pitch, s->pitch, s->base, y, pixels);
        break;
    case THRESHOLD:
        qxr_threshold_words(&s->column.threshold, words_of(s->a, done, strips), s->bytes + done * s->pitch, s->pitch,
                            pixels);
        break;
    case RESCALE:
        qxr_rescale_words(&s->column.rescale, words_of(s->a, done, strips), y, s->lo, s->hi, pixels);
        break;
    case ADD:
        qxr_add_words(words_of(s->a, done, strips), words_of(s->b, done, strips), y, s->lo, s->hi, pixels);
        break;
    default:
        qxr_clip_words(words_of(s->a, done, strips), y, s->lo, s->hi, pixels);
        break;
    }
}

int qxr_chain_words(const qxr_chain *chain, const qxr_tile *tile, uint32_t c, qxr_words made)
{
    const uint32_t inputs = qxr_get_header(chain->model)->input_count;
    const operand first = {made, 0};
    strip strips[STRIPS];
    plan p;
    p.chain = chain;
    p.tile = tile;
    p.channel = tile->channel + c;
    p.steps = 0;
    p.slot[qxr_slot(qxr_get_tensor(chain->model, inputs + chain->group))] = first;
    for (uint32_t k = chain->first; k < chain->end; k++)
        if (p.steps + 3u > MOST_STEPS || !plan_operator(&p, k))
            return 0;
    for (uint32_t done = 0; done < tile->pixels; done += STRIP)
        for (uint32_t i = 0; i < p.steps; i++)
            run_step(&p.step[i], done, qxr_min(STRIP, tile->pixels - done), strips);
    return 1;
}
