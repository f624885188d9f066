/* The WebAssembly SIMD128 kernels. Every engine that has SIMD128 has all of it, so nothing is asked at run time. */
#ifndef QXR_SIMD128_H
#define QXR_SIMD128_H

#include "scalar/scalar.h"

extern const qxr_conv_kernel qxr_simd128_bits, qxr_simd128_table, qxr_simd128_depthwise, qxr_simd128_i16;

qxr_tile_function qxr_simd128_border_bias, qxr_simd128_threshold, qxr_simd128_rescale, qxr_simd128_add,
    qxr_simd128_clip, qxr_simd128_max_pool, qxr_simd128_sum_pool;

void qxr_simd128_load(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, int32_t *x);
void qxr_simd128_store(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, const int32_t *y);

#endif
