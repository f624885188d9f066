/* The elementwise operators but thresholds. */
#include "wasm/simd128_lanes.h"

enum { AT_ONCE = 4 }; /* vectors of a turn */

/* One vector of a sum or a clip: x[0] + x[1], or x[0] between lo and hi. */
typedef struct pair {
    const int32_t *x[2];
    v128_t lo, hi;
    int is_sum;
} pair;

static inline void compute(const pair *k, size_t i, uint32_t lanes, int32_t *y)
{
    const v128_t v = load_lanes(k->x[0] + i, lanes);
    if (k->is_sum)
        store_lanes(y + i, lanes, wasm_i32x4_add(v, load_lanes(k->x[1] + i, lanes)));
    else
        store_lanes(y + i, lanes, wasm_i32x4_min(wasm_i32x4_max(v, k->lo), k->hi));
}

/* `is_sum` is a constant in each place of use. */
static inline __attribute__((always_inline)) void compute_all(pair k, int is_sum, const qxr_tile *tile, int32_t *y)
{
    const size_t count = (size_t)tile->pixels * tile->channels;
    size_t i = 0;
    k.is_sum = is_sum;
    for (; i + AT_ONCE * LANES <= count; i += AT_ONCE * LANES)
        for (uint32_t j = 0; j < AT_ONCE; j++)
            compute(&k, i + j * LANES, LANES, y);
    for (; i < count; i += LANES)
        compute(&k, i, count - i < LANES ? (uint32_t)(count - i) : LANES, y);
}

void qxr_simd128_add(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const pair k = {{work->x[0], work->x[1]}, wasm_i32x4_splat(0), wasm_i32x4_splat(0), 1};
    compute_all(k, 1, tile, y);
}

void qxr_simd128_clip(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const pair k = {{work->x[0], NULL}, wasm_i32x4_splat(work->op->first), wasm_i32x4_splat(work->op->second), 0};
    compute_all(k, 0, tile, y);
}

void qxr_simd128_border_bias(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const uint32_t channels = work->out->extent[0], height = work->out->extent[1], width = work->out->extent[2];
    const uint32_t column_classes = (uint32_t)work->op->second;
    const int32_t *values = qxr_constants32(work), *x = work->x[0];
    const uint8_t *rows = (const uint8_t *)(values + (size_t)work->op->first * column_classes * channels);
    uint32_t row = tile->pixel / width, column = tile->pixel % width;
    for (uint32_t p = 0; p < tile->pixels; p++, x += tile->channels, y += tile->channels) {
        const size_t class = (size_t)rows[row] * column_classes + rows[height + column];
        const int32_t *bias = values + class * channels + tile->channel;
        for (uint32_t c = 0; c < tile->channels; c += LANES) {
            const uint32_t lanes = qxr_min(LANES, tile->channels - c);
            store_lanes(y + c, lanes, wasm_i32x4_add(load_lanes(x + c, lanes), load_lanes(bias + c, lanes)));
        }
        if (++column == width) {
            column = 0;
            row++;
        }
    }
}

/* Four channels: their parameters, and whether results fit 32 bits before they are clamped. */
typedef struct scale {
    v128_t multiplier, low_addend, high_addend;
    v128_t lo, hi; /* clamps, in 32 bits */
    uint32_t shift, lanes;
    int narrow;
} scale;

static int fits(const qxr_op *op, int64_t x, int64_t multiplier, int64_t addend)
{
    const int64_t v = qxr_shift_right(x * multiplier + addend, op->parameter);
    return v >= INT32_MIN && v <= INT32_MAX;
}

/* The addends of lanes beyond the last are those of a channel that always fits. */
static scale read_scale(const qxr_work *work, uint32_t channel, uint32_t lanes)
{
    const qxr_op *op = work->op;
    const int per_channel = (op->flags & QXR_PER_CHANNEL) != 0;
    const uint32_t channels = per_channel ? work->out->extent[0] : 1u;
    const int64_t *addend = (const int64_t *)(const void *)qxr_constants(work);
    const int32_t *multiplier = (const int32_t *)(addend + channels);
    int64_t r[LANES] = {0};
    int32_t m[LANES] = {0};
    scale s;
    s.narrow = op->parameter <= 32u;
    for (uint32_t i = 0; i < lanes; i++) {
        const uint32_t c = per_channel ? channel + i : 0u;
        r[i] = addend[c];
        m[i] = multiplier[c];
        s.narrow = s.narrow && fits(op, work->in[0]->lo, m[i], r[i]) && fits(op, work->in[0]->hi, m[i], r[i]);
    }
    s.multiplier = wasm_v128_load(m);
    s.low_addend = wasm_v128_load(r);
    s.high_addend = wasm_v128_load(r + 2);
    s.lo = wasm_i32x4_splat(op->first);
    s.hi = wasm_i32x4_splat(op->second);
    s.shift = op->parameter;
    s.lanes = lanes;
    return s;
}

static inline v128_t low_words(v128_t a, v128_t b) { return wasm_i32x4_shuffle(a, b, 0, 2, 4, 6); }

/* Results that fit 32 bits: the bits that a shift of at most 32 brings into the lower half are the same whether zeros
 * or signs follow, and shifting zeros is one instruction. */
static inline v128_t scale_narrow(const scale *s, v128_t v)
{
    const v128_t a = wasm_i64x2_add(wasm_i64x2_extmul_low_i32x4(v, s->multiplier), s->low_addend);
    const v128_t b = wasm_i64x2_add(wasm_i64x2_extmul_high_i32x4(v, s->multiplier), s->high_addend);
    const v128_t joined = low_words(wasm_u64x2_shr(a, s->shift), wasm_u64x2_shr(b, s->shift));
    return wasm_i32x4_min(wasm_i32x4_max(joined, s->lo), s->hi);
}

static inline v128_t clamp_wide(v128_t v, v128_t lo, v128_t hi)
{
    v = wasm_v128_bitselect(lo, v, wasm_i64x2_gt(lo, v));
    return wasm_v128_bitselect(hi, v, wasm_i64x2_gt(v, hi));
}

static inline v128_t scale_wide(const scale *s, v128_t v)
{
    const v128_t lo = wasm_i64x2_extend_low_i32x4(s->lo), hi = wasm_i64x2_extend_low_i32x4(s->hi);
    const v128_t a = wasm_i64x2_add(wasm_i64x2_extmul_low_i32x4(v, s->multiplier), s->low_addend);
    const v128_t b = wasm_i64x2_add(wasm_i64x2_extmul_high_i32x4(v, s->multiplier), s->high_addend);
    return low_words(clamp_wide(wasm_i64x2_shr(a, s->shift), lo, hi), clamp_wide(wasm_i64x2_shr(b, s->shift), lo, hi));
}

/* `narrow` and `lanes` are constants in each place of use but the last: a loop of its own for each. */
static inline __attribute__((always_inline)) void scale_all(const scale *s, int narrow, uint32_t lanes, uint32_t pixels,
                                                            size_t pitch, const int32_t *x, int32_t *y)
{
    for (uint32_t p = 0; p < pixels; p++, x += pitch, y += pitch) {
        const v128_t v = load_lanes(x, lanes);
        store_lanes(y, lanes, narrow ? scale_narrow(s, v) : scale_wide(s, v));
    }
}

void qxr_simd128_rescale(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    for (uint32_t c = 0; c < tile->channels; c += LANES) {
        const scale s = read_scale(work, tile->channel + c, qxr_min(LANES, tile->channels - c));
        if (s.narrow && s.lanes == LANES)
            scale_all(&s, 1, LANES, tile->pixels, tile->channels, work->x[0] + c, y + c);
        else
            scale_all(&s, s.narrow, s.lanes, tile->pixels, tile->channels, work->x[0] + c, y + c);
    }
}
