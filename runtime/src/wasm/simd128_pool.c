/* Maximum and sum over windows, four channels at a time; maxima of bytes 16 at a time. */
#include "wasm/simd128_lanes.h"
#include "vector/pool.h"

/* Four channels of one tap, fewer at the end of a tensor, behind which nothing may be read. */
static inline v128_t load_tap(const qxr_tensor *in, uint32_t storage, const uint8_t *at, uint32_t lanes)
{
    int32_t few[LANES] = {0};
    if (lanes < LANES) {
        qxr_scalar_load_run(in, at, 0, lanes, few);
        return wasm_v128_load(few);
    }
    if (storage == QXR_U8) {
        const v128_t words = wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(at));
        return wasm_i32x4_add(wasm_u32x4_extend_low_u16x8(words), wasm_i32x4_splat(qxr_base(in)));
    }
    return storage == QXR_I16 ? wasm_i32x4_load16x4(at) : wasm_v128_load(at);
}

static inline v128_t join_taps(const qxr_pool_window *w, const qxr_tensor *in, uint32_t storage, uint32_t channel,
                               uint32_t lanes, int is_max)
{
    v128_t joined = wasm_i32x4_splat(is_max ? INT32_MIN : 0);
    for (uint32_t r = 0; r < w->rows; r++)
        for (uint32_t c = 0; c < w->columns; c++) {
            const uint8_t *at = w->first + r * w->row + c * w->column + (size_t)channel * (1u << (storage - 1u));
            const v128_t tap = load_tap(in, storage, at, lanes);
            joined = is_max ? wasm_i32x4_max(joined, tap) : wasm_i32x4_add(joined, tap);
        }
    return joined;
}

/* Maxima of 16 bytes, as far as the channels go; returns how many were made. */
static uint32_t join_bytes(const qxr_pool_window *w, const qxr_tensor *in, uint32_t channel, uint32_t channels,
                           int32_t *y)
{
    const v128_t base = wasm_i32x4_splat(qxr_base(in));
    uint32_t done = 0;
    for (; done + 16u <= channels; done += 16u, y += 16) {
        v128_t joined = wasm_i8x16_splat(0), low, high;
        for (uint32_t r = 0; r < w->rows; r++)
            for (uint32_t c = 0; c < w->columns; c++)
                joined = wasm_u8x16_max(joined, wasm_v128_load(w->first + r * w->row + c * w->column + channel + done));
        low = wasm_u16x8_extend_low_u8x16(joined);
        high = wasm_u16x8_extend_high_u8x16(joined);
        wasm_v128_store(y, wasm_i32x4_add(wasm_u32x4_extend_low_u16x8(low), base));
        wasm_v128_store(y + 4, wasm_i32x4_add(wasm_u32x4_extend_high_u16x8(low), base));
        wasm_v128_store(y + 8, wasm_i32x4_add(wasm_u32x4_extend_low_u16x8(high), base));
        wasm_v128_store(y + 12, wasm_i32x4_add(wasm_u32x4_extend_high_u16x8(high), base));
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

void qxr_simd128_max_pool(const qxr_work *work, const qxr_tile *tile, int32_t *y) { pool(work, tile, 1, y); }

void qxr_simd128_sum_pool(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    pool(work, tile, 0, y);
    qxr_multiply_factors(work, tile, y);
}
