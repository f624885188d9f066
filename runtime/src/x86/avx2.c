/* The table of AVX2 kernels. */
#include "x86/avx2.h"

static const qxr_conv_kernel *const conv[] = {&qxr_avx2_u8, &qxr_avx2_i16, NULL};

const qxr_isa qxr_isa_avx2 = {
    .name = "avx2",
    .parent = &qxr_isa_scalar,
    .available = qxr_cpu_has_avx2,
    .conv = conv,
    .load = qxr_scalar_load,
    .store = qxr_scalar_store,
    .tile_elements = 8192,
    .tile_channels = 512,
};
