/* The table of SIMD128 kernels. */
#include "wasm/simd128.h"

static int always(void) { return 1; }

static const qxr_conv_kernel *const conv[] = {&qxr_simd128_bits, &qxr_simd128_table, &qxr_simd128_depthwise,
                                             &qxr_simd128_i16, NULL};

const qxr_isa qxr_isa_simd128 = {
    .name = "simd128",
    .parent = &qxr_isa_scalar,
    .available = always,
    .conv = conv,
    .tile = {
        [QXR_BORDER_BIAS] = qxr_simd128_border_bias,
        [QXR_THRESHOLD] = qxr_simd128_threshold,
        [QXR_RESCALE] = qxr_simd128_rescale,
        [QXR_ADD] = qxr_simd128_add,
        [QXR_CLIP] = qxr_simd128_clip,
        [QXR_MAX_POOL] = qxr_simd128_max_pool,
        [QXR_SUM_POOL] = qxr_simd128_sum_pool,
    },
    .load = qxr_simd128_load,
    .store = qxr_simd128_store,
    .tile_elements = 2048,
    .tile_channels = 512,
    .block_channels = 128,
};
