/* Elementwise operators that follow each other in one group, with AVX2: eight channels and some pixels go through all
 * of them before the next are begun, so that what is between two operators stays in the nearest cache. A clip joins
 * the operator before it. */
#include <string.h>

#include "x86/avx2_chain_bytes.h"
#include "x86/avx2_lanes.h"
#include "x86/avx2_words.h"

enum {
    STRIP = 64,                            /* pixels at a time */
    SPARE = QXR_SLOTS,                     /* strips: one for each slot, and one for each operand from the arena */
    STRIPS = QXR_SLOTS + 2,
    MOST_STEPS = 40,
    STEPS_OF_OPERATOR = 4                  /* both operands loaded, the operator, its result stored */
};

enum { FROM_WORDS, FROM_ARENA, BIAS, THRESHOLD, BYTE_THRESHOLD, RESCALE, RESCALE_WORDS, ADD, CLIP, TO_ARENA };

/* Where values lie: in a strip, or 32 bits each where they are at home, in the tile or the arena. */
typedef struct operand {
    uint32_t strip;
    int32_t *home;                         /* of the tile's first pixel; null: in the strip */
    size_t pitch;
} operand;

typedef struct step {
    int kind;
    operand a, b, y;
    const qxr_tensor *tensor;              /* loaded or stored */
    qxr_work work;
    int32_t lo, hi;                        /* of a clip, and of what is added */
    union {
        qxr_threshold_column threshold;
        qxr_rescale_column rescale;
    } column;
} step;

/* Eight channels of a tile. */
typedef struct plan {
    const qxr_chain *chain;
    const qxr_tile *tile;
    uint32_t c, lanes;                     /* first channel within the tile */
    operand slot[QXR_SLOTS];
    qxr_words made;                        /* the result of the operator before the chain, if it has 16 bits */
    uint32_t steps;
    step step[MOST_STEPS];
} plan;

static step *add_step(plan *p, int kind, operand y)
{
    step *s = &p->step[p->steps++];
    s->a = s->b = s->y = y;
    s->kind = kind;
    return s;
}

static operand strip_of(uint32_t strip)
{
    const operand found = {strip, NULL, LANES};
    return found;
}

/* A tensor in the arena, if it has 32 bits; else the strip. */
static operand at_home(const plan *p, const qxr_tensor *t, uint32_t strip)
{
    const size_t channels = t->extent[0];
    operand found = strip_of(strip);
    if (qxr_storage(t) == QXR_I32) {
        found.home = (int32_t *)(void *)(p->chain->arena + t->arena_offset);
        found.home += p->tile->pixel * channels + p->tile->channel + p->c;
        found.pitch = channels;
    }
    return found;
}

/* Where an operand is found; what lies in the arena as bytes or words is loaded. */
static operand find_operand(plan *p, const qxr_op *op, uint32_t i)
{
    const qxr_model *model = p->chain->model;
    const qxr_tensor *in = qxr_get_tensor(model, op->input[i]);
    const uint32_t first = qxr_get_header(model)->input_count + p->chain->group; /* tensor of the group */
    operand found = p->slot[qxr_slot(in)];
    if (op->input[i] == first && p->made.at) {
        found = strip_of(SPARE + i);
        add_step(p, FROM_WORDS, found);
    } else if (op->input[i] < first) {
        found = at_home(p, in, SPARE + i);
        if (!found.home)
            add_step(p, FROM_ARENA, found)->tensor = in;
    }
    return found;
}

static int32_t clamped(int32_t value, int32_t lo, int32_t hi) { return value < lo ? lo : value > hi ? hi : value; }

/* A clip of what the step before has made, and nobody else reads: its result takes the same slot. */
static int join_clip(plan *p, uint32_t index, const qxr_op *op, operand y)
{
    step *before = p->steps ? &p->step[p->steps - 1u] : NULL;
    int32_t *lo, *hi;
    if (!before || before->y.home || before->y.strip != y.strip ||
        op->input[0] != qxr_get_header(p->chain->model)->input_count + index - 1u)
        return 0;
    if (before->kind != ADD && before->kind != RESCALE && before->kind != RESCALE_WORDS)
        return 0;
    lo = before->kind == ADD ? &before->lo : &before->column.rescale.lo;
    hi = before->kind == ADD ? &before->hi : &before->column.rescale.hi;
    *lo = clamped(*lo, op->first, op->second);
    *hi = clamped(*hi, op->first, op->second);
    before->y = y;
    return 1;
}

/* A rescale of the words that were made reads them itself. */
static int joins_words(plan *p)
{
    step *s = &p->step[p->steps - 1u];
    const qxr_rescale_column *k = &s->column.rescale;
    if (p->steps < 2u || p->step[p->steps - 2u].kind != FROM_WORDS || k->shift >= 32u || !k->fits)
        return 0;
    s[-1] = *s;
    p->steps--;
    return 1;
}

static void plan_operator(plan *p, uint32_t index)
{
    const qxr_model *model = p->chain->model;
    const qxr_op *op = qxr_get_op(model, index);
    const qxr_tensor *out = qxr_get_tensor(model, qxr_get_header(model)->input_count + index);
    const operand y = at_home(p, out, qxr_slot(out));
    if (op->opcode != QXR_CLIP || !join_clip(p, index, op, y)) {
        const operand a = find_operand(p, op, 0), b = op->opcode == QXR_ADD ? find_operand(p, op, 1) : a;
        step *s = add_step(p, CLIP, y);
        s->a = a;
        s->b = b;
        s->lo = INT32_MIN;
        s->hi = INT32_MAX;
        memset(&s->work, 0, sizeof s->work);
        s->work.model = model;
        s->work.op = op;
        s->work.in[0] = qxr_get_tensor(model, op->input[0]);
        s->work.out = out;
        switch (op->opcode) {
        case QXR_BORDER_BIAS:
            s->kind = BIAS;
            break;
        case QXR_THRESHOLD:
            s->kind = THRESHOLD;
            s->tensor = out;
            qxr_read_threshold(&s->work, p->tile, p->c, p->lanes, &s->column.threshold);
            if (qxr_storage(out) == QXR_U8 && !qxr_is_read(p->chain, index) &&
                qxr_has_byte_threshold(&s->column.threshold))
                s->kind = BYTE_THRESHOLD;
            break;
        case QXR_RESCALE:
            s->kind = RESCALE;
            qxr_read_rescale(&s->work, p->tile, p->c, p->lanes, &s->column.rescale);
            if (joins_words(p))
                p->step[p->steps - 1u].kind = RESCALE_WORDS;
            break;
        case QXR_ADD:
            s->kind = ADD;
            break;
        default:
            s->lo = op->first;
            s->hi = op->second;
            break;
        }
    }
    p->slot[y.strip] = y;
    if (qxr_storage(out) != QXR_VIRTUAL && !y.home && p->step[p->steps - 1u].kind != BYTE_THRESHOLD)
        add_step(p, TO_ARENA, y)->tensor = out;
}

typedef int32_t strip[STRIP][LANES];

/* 16 bits to 32. */
static void widen(const int16_t *x, size_t pitch, uint32_t pixels, strip y)
{
    UNROLL_4 for (uint32_t i = 0; i < pixels; i++) {
        store_lanes(y[i], LANES, load_words(x + i * pitch));
    }
}

static void from_arena(const plan *p, const qxr_tensor *t, uint32_t pixel, uint32_t pixels, strip y)
{
    const size_t channels = t->extent[0], bytes = qxr_element_bytes(t);
    const size_t first = pixel * channels + p->tile->channel + p->c;
    const uint8_t *data = p->chain->arena + t->arena_offset, *at = data + first * bytes;
    const __m256i base = _mm256_set1_epi32(qxr_base(t));
    if (p->lanes < LANES)
        for (uint32_t i = 0; i < pixels; i++)
            qxr_scalar_load_run(t, data, first + i * channels, p->lanes, y[i]);
    else if (bytes == 1u)
        UNROLL_4 for (uint32_t i = 0; i < pixels; i++) {
            const __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)(at + i * channels));
            store_lanes(y[i], LANES, _mm256_add_epi32(_mm256_cvtepu8_epi32(x), base));
        }
    else
        widen((const int16_t *)(const void *)at, channels, pixels, y);
}

/* Four pixels of eight bytes. Values lie within the tensor's range, so nothing saturates. */
static inline void store_bytes(uint8_t *to, size_t pitch, strip y, uint32_t i, __m256i base)
{
    const __m256i ab = _mm256_packs_epi32(_mm256_sub_epi32(load_lanes(y[i], LANES), base),
                                          _mm256_sub_epi32(load_lanes(y[i + 1u], LANES), base));
    const __m256i cd = _mm256_packs_epi32(_mm256_sub_epi32(load_lanes(y[i + 2u], LANES), base),
                                          _mm256_sub_epi32(load_lanes(y[i + 3u], LANES), base));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), order);
    const __m128i low = _mm256_castsi256_si128(all), high = _mm256_extracti128_si256(all, 1);
    _mm_storel_epi64((__m128i *)(void *)to, low);
    _mm_storel_epi64((__m128i *)(void *)(to + pitch), _mm_unpackhi_epi64(low, low));
    _mm_storel_epi64((__m128i *)(void *)(to + 2u * pitch), high);
    _mm_storel_epi64((__m128i *)(void *)(to + 3u * pitch), _mm_unpackhi_epi64(high, high));
}

static void to_arena(const plan *p, const qxr_tensor *t, uint32_t pixel, uint32_t pixels, strip y)
{
    const size_t channels = t->extent[0], bytes = qxr_element_bytes(t);
    const size_t first = pixel * channels + p->tile->channel + p->c;
    uint8_t *data = p->chain->arena + t->arena_offset, *at = data + first * bytes;
    const __m256i base = _mm256_set1_epi32(qxr_base(t));
    uint32_t i = 0;
    if (p->lanes == LANES && bytes == 1u)
        for (; i + 4u <= pixels; i += 4u)
            store_bytes(at + i * channels, channels, y, i, base);
    else if (p->lanes == LANES && bytes == 2u)
        for (; i + 2u <= pixels; i += 2u) {
            const __m256i two = _mm256_packs_epi32(load_lanes(y[i], LANES), load_lanes(y[i + 1u], LANES));
            const __m256i both = _mm256_permute4x64_epi64(two, 0xD8);
            _mm_storeu_si128((__m128i *)(void *)(at + 2u * i * channels), _mm256_castsi256_si128(both));
            _mm_storeu_si128((__m128i *)(void *)(at + 2u * (i + 1u) * channels), _mm256_extracti128_si256(both, 1));
        }
    for (; i < pixels; i++)
        qxr_scalar_store_run(t, data, first + i * channels, p->lanes, y[i]);
}

/* y = min(max(a + b, lo), hi), b being null for a clip. */
INLINE void add_pitched(const qxr_span *a, size_t a_pitch, size_t y_pitch, const qxr_span *b, size_t b_pitch,
                        const step *s, uint32_t lanes)
{
    const __m256i lo = _mm256_set1_epi32(s->lo), hi = _mm256_set1_epi32(s->hi);
    const uint32_t pixels = a->pixels;
    const int32_t *from = a->from, *more = b ? b->from : NULL;
    int32_t *y = a->to;
    UNROLL_4 for (uint32_t i = 0; i < pixels; i++) {
        __m256i v = load_lanes(from + i * a_pitch, lanes);
        if (b)
            v = _mm256_add_epi32(v, load_lanes(more + i * b_pitch, lanes));
        store_lanes(y + i * y_pitch, lanes, _mm256_min_epi32(_mm256_max_epi32(v, lo), hi));
    }
}

static void add_strips(const step *s, const qxr_span *a, const qxr_span *b, uint32_t lanes)
{
    if (lanes < LANES)
        add_pitched(a, a->from_pitch, a->to_pitch, b, b ? b->from_pitch : 0u, s, lanes);
    else if (!b)
        WITH_PITCH(add_pitched, a, NULL, 0, s, LANES);
    else if (b->from_pitch == LANES)
        WITH_PITCH(add_pitched, a, b, LANES, s, LANES);
    else
        add_pitched(a, a->from_pitch, a->to_pitch, b, b->from_pitch, s, LANES);
}

static int32_t *place_of(operand x, uint32_t done, strip *strips)
{
    return x.home ? x.home + done * x.pitch : strips[x.strip][0];
}

static qxr_span span_of(operand x, operand y, uint32_t done, uint32_t pixels, strip *strips)
{
    const qxr_span s = {place_of(x, done, strips), place_of(y, done, strips), x.pitch, y.pitch, pixels, NULL};
    return s;
}

static void to_bytes(const plan *p, const step *s, uint32_t pixel, const qxr_span *x)
{
    const size_t channels = s->tensor->extent[0];
    uint8_t *to = p->chain->arena + s->tensor->arena_offset + pixel * channels + p->tile->channel + p->c;
    qxr_apply_byte_threshold(&s->column.threshold, x, qxr_base(s->tensor), to, channels);
}

/* Pixels from `done` of the tile on. */
static void run_step(const plan *p, const step *s, uint32_t done, uint32_t pixels, strip *strips)
{
    const qxr_span b = span_of(s->b, s->y, done, pixels, strips);
    qxr_span a = span_of(s->a, s->y, done, pixels, strips);
    const uint32_t pixel = p->tile->pixel + done;
    switch (s->kind) {
    case FROM_WORDS:
        widen(p->made.at + done * p->made.pitch + p->c, p->made.pitch, pixels, strips[s->y.strip]);
        break;
    case FROM_ARENA:
        from_arena(p, s->tensor, pixel, pixels, strips[s->y.strip]);
        break;
    case BIAS:
        qxr_apply_border_bias(&s->work, pixel, p->tile->channel + p->c, p->lanes, &a);
        break;
    case THRESHOLD:
        qxr_apply_threshold(&s->column.threshold, &a);
        break;
    case BYTE_THRESHOLD:
        to_bytes(p, s, pixel, &a);
        break;
    case RESCALE:
        qxr_apply_rescale(&s->column.rescale, &a);
        break;
    case RESCALE_WORDS:
        a.words = p->made.at + done * p->made.pitch + p->c;
        a.from_pitch = p->made.pitch;
        qxr_apply_rescale(&s->column.rescale, &a);
        break;
    case ADD:
        add_strips(s, &a, &b, p->lanes);
        break;
    case CLIP:
        add_strips(s, &a, NULL, p->lanes);
        break;
    default:
        to_arena(p, s->tensor, pixel, pixels, strips[s->y.strip]);
        break;
    }
}

/* Channels from the tile's channel c on. */
static void run_column(plan *p, uint32_t c, uint32_t lanes)
{
    strip strips[STRIPS];
    p->c = c;
    p->lanes = lanes;
    p->steps = 0;
    for (uint32_t i = 0; i < QXR_SLOTS; i++) {
        const operand tile = {i, p->chain->slots + i * p->chain->elements + p->c, p->tile->channels};
        p->slot[i] = tile;
    }
    for (uint32_t k = p->chain->first; k < p->chain->end; k++)
        plan_operator(p, k);
    for (uint32_t done = 0; done < p->tile->pixels; done += STRIP)
        for (uint32_t i = 0; i < p->steps; i++)
            run_step(p, &p->step[i], done, qxr_min(STRIP, p->tile->pixels - done), strips);
}

static int is_short(const qxr_chain *chain) { return (chain->end - chain->first) * STEPS_OF_OPERATOR <= MOST_STEPS; }

int qxr_avx2_chain(const qxr_chain *chain, const qxr_tile *tile)
{
    qxr_byte_chain to_bytes;
    uint32_t done = 0;
    plan p;
    if (!is_short(chain))
        return 0;
    p.chain = chain;
    p.tile = tile;
    p.made.at = NULL;
    p.made.pitch = 0;
    if (qxr_find_byte_chain(chain, &to_bytes)) {
        done = tile->channels - tile->channels % LANES;
        qxr_run_byte_chain(&to_bytes, chain, tile, done, p.made);
    }
    for (uint32_t c = done; c < tile->channels; c += LANES)
        run_column(&p, c, qxr_min(LANES, tile->channels - c));
    return 1;
}

/* The result of the group's first operator in 16 bits, in its slot or at home in the arena; sixteen channels go on in
 * 16 bits if all their values fit, else in 32. */
int qxr_avx2_whole_chain(const qxr_conv_kernel *kernel, const qxr_conv *conv, const qxr_conv_buffers *buffers,
                         const qxr_chain *chain, const qxr_tile *tile)
{
    const qxr_tensor *out = qxr_get_tensor(chain->model, qxr_get_header(chain->model)->input_count + chain->group);
    const uint32_t storage = qxr_storage(out), channels = out->extent[0];
    qxr_byte_chain to_bytes;
    plan p;
    if (!conv && qxr_avx2_pool_bytes(chain, tile))
        return 1;
    if ((conv && !kernel->words) || !is_short(chain) || !qxr_fits_words(out) ||
        (storage != QXR_VIRTUAL && storage != QXR_I16) || tile->channel % WORDS || tile->channels % WORDS)
        return 0;
    p.chain = chain;
    p.tile = tile;
    p.made.at = (int16_t *)(void *)(chain->slots + qxr_slot(out) * chain->elements);
    p.made.pitch = tile->channels;
    if (storage == QXR_I16) {
        p.made.at = (int16_t *)(void *)(chain->arena + out->arena_offset);
        p.made.at += (size_t)tile->pixel * channels + tile->channel;
        p.made.pitch = channels;
    }
    if (conv)
        kernel->words(conv, buffers, tile, p.made);
    else if (!qxr_move_words(chain, tile, p.made))
        return 0;
    if (qxr_find_byte_chain(chain, &to_bytes) && to_bytes.is_wide) {
        qxr_run_byte_chain(&to_bytes, chain, tile, tile->channels, p.made);
        return 1;
    }
    for (uint32_t c = 0; c < tile->channels && chain->first < chain->end; c += WORDS) {
        const qxr_words made = {p.made.at + c, p.made.pitch};
        if (qxr_chain_words(chain, tile, c, made))
            continue;
        run_column(&p, c, LANES);
        run_column(&p, c + LANES, LANES);
    }
    return 1;
}
