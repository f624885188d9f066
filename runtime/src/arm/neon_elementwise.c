/* The elementwise operators but thresholds. */
#include "arm/neon_lanes.h"

void qxr_neon_add(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const size_t count = (size_t)tile->pixels * tile->channels;
    for (size_t i = 0; i < count; i += LANES) {
        const uint32_t lanes = count - i < LANES ? (uint32_t)(count - i) : LANES;
        store_lanes(y + i, lanes, vaddq_s32(load_lanes(work->x[0] + i, lanes), load_lanes(work->x[1] + i, lanes)));
    }
}

void qxr_neon_clip(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const size_t count = (size_t)tile->pixels * tile->channels;
    const int32x4_t lo = vdupq_n_s32(work->op->first), hi = vdupq_n_s32(work->op->second);
    for (size_t i = 0; i < count; i += LANES) {
        const uint32_t lanes = count - i < LANES ? (uint32_t)(count - i) : LANES;
        store_lanes(y + i, lanes, vminq_s32(vmaxq_s32(load_lanes(work->x[0] + i, lanes), lo), hi));
    }
}

void qxr_neon_border_bias(const qxr_work *work, const qxr_tile *tile, int32_t *y)
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
            store_lanes(y + c, lanes, vaddq_s32(load_lanes(x + c, lanes), load_lanes(bias + c, lanes)));
        }
        if (++column == width) {
            column = 0;
            row++;
        }
    }
}

/* The parameters of four channels. */
typedef struct scale {
    int32x4_t multiplier, lo, hi;
    int64x2_t low_addend, high_addend, left; /* left: minus the shift */
    uint32_t lanes;
} scale;

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
    for (uint32_t i = 0; i < lanes; i++) {
        const uint32_t c = per_channel ? channel + i : 0u;
        r[i] = addend[c];
        m[i] = multiplier[c];
    }
    s.multiplier = vld1q_s32(m);
    s.low_addend = vld1q_s64(r);
    s.high_addend = vld1q_s64(r + 2);
    s.lo = vdupq_n_s32(op->first);
    s.hi = vdupq_n_s32(op->second);
    s.left = vdupq_n_s64(-(int64_t)op->parameter);
    s.lanes = lanes;
    return s;
}

/* Sums of 64 bits; shifted, and saturated to 32 bits, which no clamp to numbers of 32 bits can tell. */
static inline int32x4_t scaled(const scale *s, int32x4_t x)
{
    const int64x2_t low = vmlal_s32(s->low_addend, vget_low_s32(x), vget_low_s32(s->multiplier));
    const int64x2_t high = vmlal_high_s32(s->high_addend, x, s->multiplier);
    const int32x4_t v = vqmovn_high_s64(vqmovn_s64(vshlq_s64(low, s->left)), vshlq_s64(high, s->left));
    return vminq_s32(vmaxq_s32(v, s->lo), s->hi);
}

void qxr_neon_rescale(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    for (uint32_t c = 0; c < tile->channels; c += LANES) {
        const scale s = read_scale(work, tile->channel + c, qxr_min(LANES, tile->channels - c));
        const int32_t *from = work->x[0] + c;
        int32_t *to = y + c;
        for (uint32_t p = 0; p < tile->pixels; p++, from += tile->channels, to += tile->channels)
            store_lanes(to, s.lanes, scaled(&s, load_lanes(from, s.lanes)));
    }
}
