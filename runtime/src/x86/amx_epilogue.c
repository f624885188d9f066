/* What follows a convolution in its group, sixteen channels at a time with AVX-512, in 32 bits. */
#include "x86/amx_epilogue.h"

#include "x86/avx2_loops.h"

/* ---- The form of a chain ---- */

static int adds_shortcut(const qxr_epilogue *e, const qxr_op *op, uint32_t current, uint32_t rescaled)
{
    const uint32_t other = op->input[0] == current ? op->input[1] : op->input[0];
    if (op->input[0] != current && op->input[1] != current)
        return 0;
    return e->shortcut_rescale ? other == rescaled
                               : other < qxr_get_header(e->chain->model)->input_count + e->chain->group;
}

/* Takes one operator; 0 where the form has no place for it. `current`: the tensor so far; `rescaled`: the shortcut's. */
static int take_operator(qxr_epilogue *e, const qxr_op *op, uint32_t *current, uint32_t *rescaled, uint32_t result)
{
    const qxr_model *model = e->chain->model;
    const uint32_t first = qxr_get_header(model)->input_count + e->chain->group;
    const int is_added = e->shortcut != NULL && *rescaled == QXR_NONE32, is_clipped = e->lo != INT32_MIN || e->hi != INT32_MAX;
    const int is_last = is_added || is_clipped || e->threshold;
    if (op->opcode == QXR_RESCALE && op->input[0] < first && !e->shortcut) {
        e->shortcut_rescale = op;
        e->shortcut = qxr_get_tensor(model, op->input[0]);
        *rescaled = result;
        return 1;
    }
    if (op->opcode == QXR_ADD) {
        if (is_last || !adds_shortcut(e, op, *current, *rescaled))
            return 0;
        if (!e->shortcut)
            e->shortcut = qxr_get_tensor(model, op->input[op->input[0] == *current]);
        *rescaled = QXR_NONE32;
    } else if (op->input[0] != *current || e->threshold) {
        return 0;
    } else if (op->opcode == QXR_RESCALE && !is_last && !e->rescale && !e->bias) {
        e->rescale = op;
    } else if (op->opcode == QXR_BORDER_BIAS && !is_last && !e->bias) {
        e->bias = op;
    } else if (op->opcode == QXR_CLIP && !is_clipped) {
        e->lo = op->first;
        e->hi = op->second;
    } else if (op->opcode == QXR_THRESHOLD && op->count <= MOST_THRESHOLDS) {
        e->threshold = op;
    } else {
        return 0;
    }
    *current = result;
    return 1;
}

/* ---- Rescales ---- */

static const qxr_tensor *input_of(const qxr_epilogue *e, const qxr_op *op)
{
    return qxr_get_tensor(e->chain->model, op->input[0]);
}

static const int64_t *addends(const qxr_epilogue *e, const qxr_op *op)
{
    return (const int64_t *)(const void *)(e->chain->model->bytes + op->constant_offset);
}

static void read_rescale(const qxr_epilogue *e, const qxr_op *op, uint32_t channel, qxr_rescale16 *k)
{
    const int64_t *addend = addends(e, op);
    const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
    if (op->flags & QXR_PER_CHANNEL) {
        const int32_t *multiplier = (const int32_t *)(const void *)(addend + e->made->extent[0]);
        const __m512i low = _mm512_loadu_si512(addend + channel), high = _mm512_loadu_si512(addend + channel + HALF / 2);
        k->multiplier[0] = _mm512_loadu_si512(multiplier + channel);
        k->addend[0] = _mm512_permutex2var_epi64(low, even, high);
        k->addend[1] = _mm512_permutex2var_epi64(low, odd, high);
    } else {
        k->multiplier[0] = _mm512_set1_epi32(*(const int32_t *)(const void *)(addend + 1));
        k->addend[0] = k->addend[1] = _mm512_set1_epi64(*addend);
    }
    k->multiplier[1] = _mm512_srli_epi64(k->multiplier[0], 32);
    k->shift = op->parameter;
    k->lo = op->first;
    k->hi = op->second;
}

/* With a shift below 32 the lower half of the shifted result is the answer if it fits; else the upper half has the sign. */
INLINE __m512i rescaled16(const qxr_rescale16 *k, __m512i x)
{
    const int32_t shift = (int32_t)k->shift;
    __m512i even = _mm512_add_epi64(_mm512_mul_epi32(x, k->multiplier[0]), k->addend[0]);
    __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(x, 32), k->multiplier[1]), k->addend[1]);
    if (shift >= 32) {
        const __m512i upper = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
        return _mm512_sra_epi32(upper, _mm_cvtsi32_si128(shift - 32));
    }
    even = _mm512_srl_epi64(even, _mm_cvtsi32_si128(shift));
    return _mm512_mask_blend_epi32(0xAAAA, even, _mm512_sll_epi64(odd, _mm_cvtsi32_si128(32 - shift)));
}

INLINE __m512i clamped16(__m512i v, int32_t lo, int32_t hi)
{
    return _mm512_min_epi32(_mm512_max_epi32(v, _mm512_set1_epi32(lo)), _mm512_set1_epi32(hi));
}

static uint64_t magnitude(int64_t value) { return value < 0 ? 0u - (uint64_t)value : (uint64_t)value; }

/* Whether every shifted result of the channels of a tile fits 32 bits. */
static int fits(const qxr_epilogue *e, const qxr_op *op, const qxr_tile *tile)
{
    const int per_channel = (op->flags & QXR_PER_CHANNEL) != 0;
    const int64_t *addend = addends(e, op);
    const int32_t *multiplier = (const int32_t *)(const void *)(addend + (per_channel ? e->made->extent[0] : 1u));
    const qxr_tensor *in = input_of(e, op);
    const uint64_t lo = magnitude(in->lo), hi = magnitude(in->hi), most = lo > hi ? lo : hi;
    const uint32_t first = per_channel ? tile->channel : 0u, count = per_channel ? tile->channels : 1u;
    uint64_t above = 0;
    for (uint32_t c = first; c < first + count; c++)
        above |= (most * magnitude(multiplier[c]) + magnitude(addend[c])) >> (31u + op->parameter);
    return op->parameter >= 32u || above == 0u;
}

int qxr_plan_epilogue(const qxr_chain *chain, const qxr_conv *conv, const qxr_tile *tile, qxr_epilogue *e)
{
    const uint32_t inputs = qxr_get_header(chain->model)->input_count;
    uint32_t current = inputs + chain->group, rescaled = QXR_NONE32;
    *e = (qxr_epilogue){chain, conv->out, conv->out, NULL, NULL, NULL, NULL, NULL, INT32_MIN, INT32_MAX};
    if (tile->channel % BLOCK || tile->channels % BLOCK || conv->group_out % BLOCK)
        return 0;
    for (uint32_t k = chain->first; k < chain->end; k++)
        if (qxr_storage(qxr_get_tensor(chain->model, inputs + k - 1u)) != QXR_VIRTUAL ||
            !take_operator(e, qxr_get_op(chain->model, k), &current, &rescaled, inputs + k))
            return 0;
    e->out = qxr_get_tensor(chain->model, current);
    return current == inputs + chain->end - 1u && rescaled == QXR_NONE32 && qxr_storage(e->out) != QXR_VIRTUAL &&
           (!e->threshold || qxr_storage(e->out) == QXR_U8) && (!e->rescale || fits(e, e->rescale, tile)) &&
           (!e->shortcut_rescale || fits(e, e->shortcut_rescale, tile));
}

/* ---- The constants of a block ---- */

/* Whether a result may lie beyond the bounds. A rescale is monotone: all lie between those of the ends. */
static int clamps(const qxr_rescale16 *k, const qxr_tensor *in)
{
    const __m512i a = rescaled16(k, _mm512_set1_epi32(in->lo)), b = rescaled16(k, _mm512_set1_epi32(in->hi));
    return (_mm512_cmpgt_epi32_mask(_mm512_set1_epi32(k->lo), _mm512_min_epi32(a, b)) |
            _mm512_cmpgt_epi32_mask(_mm512_max_epi32(a, b), _mm512_set1_epi32(k->hi))) != 0;
}

/* Whether a threshold tells a clipped value from the value: not if it lies above the lower end, and not beyond the
 * upper one. */
static int sees_clip(const qxr_epilogue_block *b, __m512i threshold)
{
    const qxr_epilogue *e = b->epilogue;
    return _mm512_cmpgt_epi32_mask(threshold, _mm512_set1_epi32(e->hi)) != 0 ||
           _mm512_cmpgt_epi32_mask(threshold, _mm512_set1_epi32(e->lo)) != 0xFFFF;
}

static void read_thresholds(qxr_epilogue_block *b, uint32_t channel, qxr_epilogue_column *k)
{
    const qxr_steps *s = &b->steps;
    const int is_clipped = b->epilogue->lo != INT32_MIN || b->epilogue->hi != INT32_MAX;
    int32_t sign[HALF], levels[HALF];
    for (uint32_t i = 0; i < s->count; i++) {
        k->threshold[i] = s->stride ? _mm512_loadu_si512(s->thresholds + i * s->stride + channel)
                                    : _mm512_set1_epi32(s->thresholds[i]);
        b->is_usual = b->is_usual && !(is_clipped && sees_clip(b, k->threshold[i]));
    }
    for (uint32_t i = 0; i < HALF; i++) {
        const int32_t plain = qxr_wrap_add(s->first, qxr_wrap_mul((int32_t)i, s->step));
        sign[i] = s->signs && qxr_is_negative(s, channel + i) ? -1 : 0;
        levels[i] = (s->levels && i <= s->count ? s->levels[i] : plain) - qxr_base(b->epilogue->out);
    }
    b->is_usual = b->is_usual && !s->levels && s->step == 1 && !s->signs;
    k->sign = _mm512_loadu_si512(sign);
    k->levels = _mm512_loadu_si512(levels);
}

void qxr_read_epilogue(const qxr_epilogue *e, uint32_t channel, qxr_epilogue_block *b)
{
    b->epilogue = e;
    b->channel = channel;
    b->is_usual = 1;
    b->steps = (qxr_steps){0};
    b->looks_up = e->shortcut && qxr_storage(e->shortcut) == QXR_U8 && e->shortcut->hi - qxr_base(e->shortcut) < HALF &&
                  (!e->shortcut_rescale || !(e->shortcut_rescale->flags & QXR_PER_CHANNEL));
    if (e->threshold) {
        const qxr_tile whole = {0, 0, 0, e->out->extent[0]};
        const qxr_work work = {e->chain->model, e->threshold, {NULL, NULL}, e->out, NULL, {NULL, NULL}};
        b->steps = qxr_read_steps(&work, &whole);
    }
    for (uint32_t h = 0; h < BLOCK / HALF; h++) {
        qxr_epilogue_column *k = &b->column[h];
        const uint32_t first = channel + h * HALF;
        if (e->rescale) {
            read_rescale(e, e->rescale, first, &k->rescale);
            b->is_usual = b->is_usual && !clamps(&k->rescale, input_of(e, e->rescale));
        }
        if (e->shortcut_rescale) {
            read_rescale(e, e->shortcut_rescale, first, &k->shortcut);
            b->is_usual = b->is_usual && (b->looks_up || !clamps(&k->shortcut, e->shortcut));
        }
        if (b->looks_up) {
            const __m512i codes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            k->table = _mm512_add_epi32(codes, _mm512_set1_epi32(qxr_base(e->shortcut)));
            if (e->shortcut_rescale)
                k->table = clamped16(rescaled16(&k->shortcut, k->table), k->shortcut.lo, k->shortcut.hi);
        }
        if (e->threshold)
            read_thresholds(b, first, k);
    }
}

/* ---- Pixels ---- */

enum { NONE, TABLE, RESCALED };                /* how the shortcut is added */
enum { THREE = 3 };

static const uint8_t *element_at(const qxr_epilogue *e, const qxr_tensor *t, size_t pixel, uint32_t channel)
{
    return e->chain->arena + t->arena_offset + (pixel * t->extent[0] + channel) * qxr_element_bytes(t);
}

static inline __m512i load_bytes(const uint8_t *at)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
}

static inline __m512i load_shortcut(const uint8_t *at, uint32_t storage, __m512i base)
{
    switch (storage) {
    case QXR_U8:
        return _mm512_add_epi32(load_bytes(at), base);
    case QXR_I16:
        return _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)at));
    default:
        return _mm512_loadu_si512(at);
    }
}

/* Biases of one pixel after the other. */
typedef struct biases {
    const int32_t *values, *row_values; /* of the channel: of all classes, of the row's */
    const uint8_t *rows, *columns;
    uint32_t row, column, width, column_classes;
    size_t channels;
} biases;

static inline void begin_row(biases *b)
{
    b->row_values = b->values + (size_t)b->rows[b->row] * b->column_classes * b->channels;
}

static biases find_biases(const qxr_epilogue *e, size_t pixel, uint32_t channel)
{
    const qxr_op *op = e->bias;
    const uint32_t height = e->made->extent[1], width = e->made->extent[2];
    biases b = {NULL, NULL, NULL, NULL, (uint32_t)(pixel / width), (uint32_t)(pixel % width), width,
                (uint32_t)op->second, e->made->extent[0]};
    b.values = (const int32_t *)(const void *)(e->chain->model->bytes + op->constant_offset);
    b.rows = (const uint8_t *)(b.values + (size_t)op->first * b.column_classes * b.channels);
    b.columns = b.rows + height;
    b.values += channel;
    begin_row(&b);
    return b;
}

static inline __m512i next_bias(biases *b)
{
    const __m512i bias = _mm512_loadu_si512(b->row_values + b->columns[b->column] * b->channels);
    if (++b->column == b->width) {
        b->column = 0;
        if (b->columns - b->rows > ++b->row) /* columns lie behind the rows */
            begin_row(b);
    }
    return bias;
}

/* Less one for every threshold above, from `top` down. */
INLINE __m512i compared(const __m512i *threshold, uint32_t count, __m512i v, __m512i top)
{
    const __m512i one = _mm512_set1_epi32(1);
    for (uint32_t i = 0; i < count; i++)
        top = _mm512_mask_sub_epi32(top, _mm512_cmpgt_epi32_mask(threshold[i], v), top, one);
    return top;
}

INLINE void store_result(uint8_t *to, __m512i v, uint32_t storage)
{
    if (storage == QXR_U8)
        _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(v));
    else if (storage == QXR_I16)
        _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16(v));
    else
        _mm512_storeu_si512(to, v);
}

/* Sixteen channels of some pixels, in the usual forms: no clamps; one plain threshold or three. Constants are copied, as
 * what is stored cannot change a copy. */
INLINE void apply(const qxr_epilogue_block *b, uint32_t h, size_t pixel, int32_t (*sums)[BLOCK], size_t count,
                  int has_rescale, int has_bias, int shortcut, uint32_t steps)
{
    const qxr_epilogue *e = b->epilogue;
    const qxr_epilogue_column *k = &b->column[h];
    const uint32_t channel = b->channel + h * HALF, storage = shortcut == RESCALED ? qxr_storage(e->shortcut) : 0u;
    const size_t to_pitch = e->out->extent[0];
    const size_t from_pitch = shortcut == NONE ? 0u : e->shortcut->extent[0] * (size_t)qxr_element_bytes(e->shortcut);
    const __m512i top = _mm512_set1_epi32(b->steps.first + (int32_t)steps - qxr_base(e->out));
    const __m512i threshold[THREE] = {k->threshold[0], steps > 1u ? k->threshold[1] : top, steps > 1u ? k->threshold[2] : top};
    const __m512i table = k->table, base = _mm512_set1_epi32(shortcut == RESCALED ? qxr_base(e->shortcut) : 0);
    const qxr_rescale16 rescale = k->rescale, other = k->shortcut;
    const uint8_t *from = shortcut == NONE ? NULL : element_at(e, e->shortcut, pixel, channel);
    uint8_t *to = (uint8_t *)(uintptr_t)element_at(e, e->out, pixel, channel); /* of the arena that the chain writes */
    biases bias = {0};
    if (has_bias)
        bias = find_biases(e, pixel, channel);
    for (size_t p = 0; p < count; p++, to += to_pitch, from += from_pitch) {
        __m512i v = _mm512_loadu_si512(sums[p] + h * HALF);
        if (has_rescale)
            v = rescaled16(&rescale, v);
        if (has_bias)
            v = _mm512_add_epi32(v, next_bias(&bias));
        if (shortcut == TABLE)
            v = _mm512_add_epi32(v, _mm512_permutexvar_epi32(load_bytes(from), table));
        if (shortcut == RESCALED)
            v = _mm512_add_epi32(v, rescaled16(&other, load_shortcut(from, storage, base)));
        store_result(to, compared(threshold, steps, v, top), QXR_U8);
    }
}

/* The same in any form. */
static void apply_any(const qxr_epilogue_block *b, uint32_t h, size_t pixel, int32_t (*sums)[BLOCK], size_t count)
{
    const qxr_epilogue *e = b->epilogue;
    const qxr_epilogue_column *k = &b->column[h];
    const uint32_t channel = b->channel + h * HALF;
    const uint32_t storage = qxr_storage(e->out);
    const __m512i top = _mm512_set1_epi32((int32_t)b->steps.count);
    const __m512i base = _mm512_set1_epi32(storage == QXR_U8 ? qxr_base(e->out) : 0);
    biases bias = {0};
    if (e->bias)
        bias = find_biases(e, pixel, channel);
    for (size_t p = 0; p < count; p++) {
        __m512i v = _mm512_loadu_si512(sums[p] + h * HALF);
        if (e->rescale)
            v = clamped16(rescaled16(&k->rescale, v), k->rescale.lo, k->rescale.hi);
        if (e->bias)
            v = _mm512_add_epi32(v, next_bias(&bias));
        if (e->shortcut) {
            const uint8_t *from = element_at(e, e->shortcut, pixel + p, channel);
            __m512i w = load_shortcut(from, qxr_storage(e->shortcut), _mm512_set1_epi32(qxr_base(e->shortcut)));
            if (e->shortcut_rescale)
                w = clamped16(rescaled16(&k->shortcut, w), k->shortcut.lo, k->shortcut.hi);
            v = _mm512_add_epi32(v, w);
        }
        v = clamped16(v, e->lo, e->hi);
        if (e->threshold) {
            v = _mm512_sub_epi32(_mm512_xor_si512(v, k->sign), k->sign);
            v = _mm512_permutexvar_epi32(compared(k->threshold, b->steps.count, v, top), k->levels);
        } else {
            v = _mm512_sub_epi32(v, base);
        }
        store_result((uint8_t *)(uintptr_t)element_at(e, e->out, pixel + p, channel), v, storage);
    }
}

INLINE void apply_usual(const qxr_epilogue_block *b, uint32_t h, size_t pixel, int32_t (*sums)[BLOCK], size_t count,
                        uint32_t steps)
{
    const qxr_epilogue *e = b->epilogue;
    if (!e->rescale && !e->bias && !e->shortcut)
        apply(b, h, pixel, sums, count, 0, 0, NONE, steps);
    else if (e->rescale && !e->bias && b->looks_up)
        apply(b, h, pixel, sums, count, 1, 0, TABLE, steps);
    else if (e->rescale && !e->bias && e->shortcut_rescale)
        apply(b, h, pixel, sums, count, 1, 0, RESCALED, steps);
    else if (e->rescale && e->bias && !e->shortcut)
        apply(b, h, pixel, sums, count, 1, 1, NONE, steps);
    else
        apply_any(b, h, pixel, sums, count);
}

void qxr_apply_epilogue(const qxr_epilogue_block *b, size_t pixel, int32_t (*sums)[BLOCK], size_t count)
{
    const uint32_t steps = b->epilogue->threshold && b->is_usual ? b->steps.count : 0u;
    for (uint32_t h = 0; h < BLOCK / HALF; h++)
        if (steps == 1u)
            apply_usual(b, h, pixel, sums, count, 1);
        else if (steps == THREE)
            apply_usual(b, h, pixel, sums, count, THREE);
        else
            apply_any(b, h, pixel, sums, count);
}
