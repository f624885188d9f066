/* Maximum and sum over windows, four channels at a time; maxima of bytes 16 at a time. */
#include "arm/neon_lanes.h"
#include "vector/pool.h"

/* Four channels of one tap, fewer at the end of a tensor, behind which nothing may be read. */
static inline int32x4_t load_tap(const qxr_tensor *in, uint32_t storage, const uint8_t *at, uint32_t lanes)
{
    int32_t few[LANES] = {0};
    if (lanes < LANES) {
        qxr_scalar_load_run(in, at, 0, lanes, few);
        return vld1q_s32(few);
    }
    if (storage == QXR_U8) {
        uint32_t four;
        __builtin_memcpy(&four, at, sizeof four);
        return vaddq_s32(low_bytes(vcreate_u8(four)), vdupq_n_s32(qxr_base(in)));
    }
    if (storage == QXR_I16)
        return vmovl_s16(vld1_s16((const int16_t *)(const void *)at));
    return vld1q_s32((const int32_t *)(const void *)at);
}

static inline int32x4_t join_taps(const qxr_pool_window *w, const qxr_tensor *in, uint32_t storage, uint32_t channel,
                               uint32_t lanes, int is_max)
{
    int32x4_t joined = vdupq_n_s32(is_max ? INT32_MIN : 0);
    for (uint32_t r = 0; r < w->rows; r++)
        for (uint32_t c = 0; c < w->columns; c++) {
            const uint8_t *at = w->first + r * w->row + c * w->column + (size_t)channel * (1u << (storage - 1u));
            const int32x4_t tap = load_tap(in, storage, at, lanes);
            joined = is_max ? vmaxq_s32(joined, tap) : vaddq_s32(joined, tap);
        }
    return joined;
}

/* Maxima of 16 bytes, as far as the channels go; returns how many were made. */
static uint32_t join_bytes(const qxr_pool_window *w, const qxr_tensor *in, uint32_t channel, uint32_t channels,
                           int32_t *y)
{
    const int32x4_t base = vdupq_n_s32(qxr_base(in));
    uint32_t done = 0;
    for (; done + 16u <= channels; done += 16u, y += 16) {
        uint8x16_t joined = vdupq_n_u8(0);
        for (uint32_t r = 0; r < w->rows; r++)
            for (uint32_t c = 0; c < w->columns; c++)
                joined = vmaxq_u8(joined, vld1q_u8(w->first + r * w->row + c * w->column + channel + done));
        vst1q_s32(y, vaddq_s32(low_bytes(vget_low_u8(joined)), base));
        vst1q_s32(y + 4, vaddq_s32(high_bytes(vget_low_u8(joined)), base));
        vst1q_s32(y + 8, vaddq_s32(low_bytes(vget_high_u8(joined)), base));
        vst1q_s32(y + 12, vaddq_s32(high_bytes(vget_high_u8(joined)), base));
    }
    return done;
}

static inline void pool_pixels(const qxr_work *work, const qxr_tile *tile, uint32_t storage, int is_max, int32_t *y)
{
    for (uint32_t p = 0; p < tile->pixels; p++, y += tile->channels) {
        const qxr_pool_window w = qxr_pool_window_at(work, tile->pixel + p);
        uint32_t c = 0;
        if (storage == QXR_U8 && is_max)
            c = join_bytes(&w, work->in[0], tile->channel, tile->channels, y);
        for (; c < tile->channels; c += LANES) {
            const uint32_t lanes = qxr_min(LANES, tile->channels - c);
            store_lanes(y + c, lanes, join_taps(&w, work->in[0], storage, tile->channel + c, lanes, is_max));
        }
    }
}

/* Constant arguments: a loop of its own for each storage. */
static inline void pool(const qxr_work *work, const qxr_tile *tile, int is_max, int32_t *y)
{
    switch (qxr_storage(work->in[0])) {
    case QXR_U8:
        pool_pixels(work, tile, QXR_U8, is_max, y);
        break;
    case QXR_I16:
        pool_pixels(work, tile, QXR_I16, is_max, y);
        break;
    default:
        pool_pixels(work, tile, QXR_I32, is_max, y);
        break;
    }
}

void qxr_neon_max_pool(const qxr_work *work, const qxr_tile *tile, int32_t *y) { pool(work, tile, 1, y); }

void qxr_neon_sum_pool(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    pool(work, tile, 0, y);
    qxr_multiply_factors(work, tile, y);
}
