/* The table of NEON kernels. */
#include "arm/neon.h"

static int always(void) { return 1; }

static const qxr_conv_kernel *const conv[] = {&qxr_neon_bits, &qxr_neon_table,     &qxr_neon_s8,
                                             &qxr_neon_depthwise, &qxr_neon_i16, NULL};

const qxr_isa qxr_isa_neon = {
    .name = "neon",
    .parent = &qxr_isa_scalar,
    .available = always,
    .conv = conv,
    .tile = {
        [QXR_BORDER_BIAS] = qxr_neon_border_bias,
        [QXR_THRESHOLD] = qxr_neon_threshold,
        [QXR_RESCALE] = qxr_neon_rescale,
        [QXR_ADD] = qxr_neon_add,
        [QXR_CLIP] = qxr_neon_clip,
        [QXR_MAX_POOL] = qxr_neon_max_pool,
        [QXR_SUM_POOL] = qxr_neon_sum_pool,
    },
    .load = qxr_neon_load,
    .store = qxr_neon_store,
    .tile_elements = 2048,
    .tile_channels = 512,
    .block_channels = 128,
};
