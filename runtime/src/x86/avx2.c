/* The table of AVX2 kernels. */
#include "x86/avx2.h"

static const qxr_conv_kernel *const conv[] = {&qxr_avx2_table, &qxr_avx2_winograd, &qxr_avx2_u8,
                                             &qxr_avx2_depthwise, &qxr_avx2_i16, NULL};

const qxr_isa qxr_isa_avx2 = {
    .name = "avx2",
    .parent = &qxr_isa_scalar,
    .available = qxr_cpu_has_avx2,
    .conv = conv,
    .tile = {
        [QXR_BORDER_BIAS] = qxr_avx2_border_bias,
        [QXR_THRESHOLD] = qxr_avx2_threshold,
        [QXR_RESCALE] = qxr_avx2_rescale,
        [QXR_ADD] = qxr_avx2_add,
        [QXR_CLIP] = qxr_avx2_clip,
        [QXR_MAX_POOL] = qxr_avx2_max_pool,
        [QXR_SUM_POOL] = qxr_avx2_sum_pool,
    },
    .load = qxr_avx2_load,
    .store = qxr_avx2_store,
    .interleave = qxr_avx2_interleave,
    .chain = qxr_avx2_chain,
    .whole_chain = qxr_avx2_whole_chain,
    .tile_elements = 8192,
    .tile_channels = 512,
    .block_channels = 128,
};
