/* The instruction set AMX: its convolutions; everything else is that of its parents. */
#include "x86/amx.h"

static const qxr_conv_kernel *const conv_kernels[] = {&qxr_amx_codes, &qxr_amx_u8, NULL};

const qxr_isa qxr_isa_amx = {
    .name = "amx",
    .parent = &qxr_isa_avx512vnni,
    .available = qxr_cpu_has_amx,
    .conv = conv_kernels,
    .load = qxr_avx2_load,
    .store = qxr_avx2_store,
    .chain = qxr_avx2_chain,
    .whole_chain = qxr_amx_whole_chain,
    .tile_elements = 16384,
    .tile_channels = 512,
    .block_channels = 32,
};
