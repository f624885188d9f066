/* Depthwise convolution, two taps to a product. */
#include <wasm_simd128.h>

#include "vector/depthwise.h"
#include "wasm/simd128.h"

enum { STEP_WEIGHTS = 2 * QXR_DEPTHWISE_CHANNELS };

static inline v128_t load8(const uint8_t *at, uint32_t bytes)
{
    /* Bytes fit in 16 bits with or without a sign. */
    return bytes == 1u ? wasm_u16x8_load8x8(at) : wasm_v128_load(at);
}

/* `bytes` is a constant in each use: a loop of its own for each width. */
static inline void multiply(const qxr_depthwise_product *p, uint32_t bytes)
{
    qxr_window_walk windows = p->windows;
    int32_t *y = p->out;
    for (uint32_t q = 0; q < p->pixels; q++, y += p->out_stride) {
        const uint8_t *at = qxr_next_window(&windows);
        const int16_t *w = p->weights;
        v128_t low = wasm_v128_load(p->sums), high = wasm_v128_load(p->sums + 4);
        for (uint32_t i = 0; i < p->steps; i++, w += STEP_WEIGHTS) {
            const v128_t a = load8(at + p->offset[2u * i], bytes), b = load8(at + p->offset[2u * i + 1u], bytes);
            const v128_t first = wasm_i16x8_shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
            const v128_t second = wasm_i16x8_shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
            low = wasm_i32x4_add(low, wasm_i32x4_dot_i16x8(first, wasm_v128_load(w)));
            high = wasm_i32x4_add(high, wasm_i32x4_dot_i16x8(second, wasm_v128_load(w + 8)));
        }
        wasm_v128_store(y, low);
        wasm_v128_store(y + 4, high);
    }
}

static void product(const qxr_depthwise_product *p)
{
    if (p->bytes == 1u)
        multiply(p, 1);
    else
        multiply(p, 2);
}

static const qxr_depthwise_kernel kernel = {2, product};

static size_t packed_size(const qxr_conv *conv) { return qxr_depthwise_packed_size(conv, &kernel); }
static void pack(const qxr_conv *conv, uint8_t *packed) { qxr_depthwise_pack(conv, &kernel, packed); }
static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_depthwise_tile(conv, &kernel, buffers, tile, y);
}

const qxr_conv_kernel qxr_simd128_depthwise = {
    "simd128 depthwise", qxr_depthwise_suits, packed_size, pack, qxr_depthwise_scratch, tile_of,
    NULL, 0,
};
