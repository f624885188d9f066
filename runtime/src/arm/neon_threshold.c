/* Thresholds: a comparison a step where the steps are few; many steps are searched in portable C. */
#include "arm/neon_lanes.h"

enum {
    MOST_COMPARED = 64, /* steps; above, the search costs less */
    HELD_STEPS = 3      /* steps whose thresholds stay in registers */
};

/* Four channels: what turns an input into a level. */
typedef struct column {
    const int32_t *thresholds; /* [count][stride] */
    size_t stride;
    int32x4_t held[HELD_STEPS];
    int32x4_t sign;            /* -1 where the channel's sign is -1, else 0 */
    int32x4_t first, step;
    uint8x16_t table;          /* the levels, where they are at most four */
    const qxr_steps *steps;
    uint32_t lanes;
} column;

static inline int32x4_t thresholds_at(const column *k, uint32_t i)
{
    const int32_t *at = k->thresholds + i * k->stride;
    return k->steps->stride ? load_lanes(at, k->lanes) : vdupq_n_s32(*at);
}

static column make_column(const qxr_steps *s, uint32_t first_channel, uint32_t c, uint32_t lanes)
{
    int32_t sign[LANES] = {0};
    column k;
    k.steps = s;
    k.lanes = lanes;
    k.thresholds = s->thresholds + (s->stride ? c : 0u);
    k.stride = s->stride ? s->stride : 1u;
    for (uint32_t i = 0; i < lanes; i++)
        sign[i] = qxr_is_negative(s, first_channel + c + i) ? -1 : 0;
    k.sign = vld1q_s32(sign);
    k.first = vdupq_n_s32(s->first);
    k.step = vdupq_n_s32(s->step);
    k.table = s->levels ? vreinterpretq_u8_s32(load_lanes(s->levels, s->count + 1u)) : vdupq_n_u8(0);
    for (uint32_t i = 0; i < HELD_STEPS; i++)
        k.held[i] = i < s->count ? thresholds_at(&k, i) : vdupq_n_s32(0);
    return k;
}

/* A table of up to four levels is looked up byte by byte: byte b of level n is byte 4 n + b of the table. */
static inline int32x4_t level_of(const column *k, int32x4_t code)
{
    const int32_t *levels = k->steps->levels;
    int32_t codes[LANES];
    if (!levels)
        return vmlaq_s32(k->first, code, k->step);
    if (k->steps->count < LANES) {
        const int32x4_t bytes = vmlaq_s32(vdupq_n_s32(0x03020100), code, vdupq_n_s32(0x04040404));
        return vreinterpretq_s32_u8(vqtbl1q_u8(k->table, vreinterpretq_u8_s32(bytes)));
    }
    vst1q_s32(codes, code);
    for (uint32_t i = 0; i < LANES; i++)
        codes[i] = levels[codes[i]];
    return vld1q_s32(codes);
}

static inline int32x4_t signed_input(const column *k, const int32_t *x)
{
    return vsubq_s32(veorq_s32(load_lanes(x, k->lanes), k->sign), k->sign);
}

/* -1 where the threshold lies above the input: code = steps - #{i : t_i > x}. */
static inline int32x4_t above(int32x4_t threshold, int32x4_t x) { return vreinterpretq_s32_u32(vcgtq_s32(threshold, x)); }

static void one_step(const column *k, uint32_t pixels, size_t pitch, const int32_t *x, int32_t *y)
{
    const int32x4_t low = k->steps->levels ? vdupq_n_s32(k->steps->levels[0]) : k->first;
    const int32x4_t high = k->steps->levels ? vdupq_n_s32(k->steps->levels[1]) : vaddq_s32(k->first, k->step);
    for (uint32_t p = 0; p < pixels; p++, x += pitch, y += pitch)
        store_lanes(y, k->lanes, vbslq_s32(vcgtq_s32(k->held[0], signed_input(k, x)), low, high));
}

static void three_steps(const column *k, uint32_t pixels, size_t pitch, const int32_t *x, int32_t *y)
{
    const int32x4_t three = vdupq_n_s32(3);
    for (uint32_t p = 0; p < pixels; p++, x += pitch, y += pitch) {
        const int32x4_t v = signed_input(k, x);
        const int32x4_t missed = vaddq_s32(above(k->held[0], v), above(k->held[1], v));
        store_lanes(y, k->lanes, level_of(k, vaddq_s32(vaddq_s32(three, missed), above(k->held[2], v))));
    }
}

static void some_steps(const column *k, uint32_t pixels, size_t pitch, const int32_t *x, int32_t *y)
{
    const int32x4_t count = vdupq_n_s32((int32_t)k->steps->count);
    for (uint32_t p = 0; p < pixels; p++, x += pitch, y += pitch) {
        const int32x4_t v = signed_input(k, x);
        int32x4_t code = count;
        for (uint32_t i = 0; i < k->steps->count; i++)
            code = vaddq_s32(code, above(thresholds_at(k, i), v));
        store_lanes(y, k->lanes, level_of(k, code));
    }
}

void qxr_neon_threshold(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_steps s = qxr_read_steps(work, tile);
    if (s.count > MOST_COMPARED) {
        qxr_scalar_threshold(work, tile, y);
        return;
    }
    for (uint32_t c = 0; c < tile->channels; c += LANES) {
        const column k = make_column(&s, tile->channel, c, qxr_min(LANES, tile->channels - c));
        if (s.count == 1u)
            one_step(&k, tile->pixels, tile->channels, work->x[0] + c, y + c);
        else if (s.count == 3u)
            three_steps(&k, tile->pixels, tile->channels, work->x[0] + c, y + c);
        else
            some_steps(&k, tile->pixels, tile->channels, work->x[0] + c, y + c);
    }
}
