/* The kernels for 64-bit ARM. Every such processor has NEON (Advanced SIMD); what came later is asked at run time. */
#ifndef QXR_NEON_H
#define QXR_NEON_H

#include "scalar/scalar.h"

extern const qxr_conv_kernel qxr_neon_bits, qxr_neon_table, qxr_neon_s8, qxr_neon_depthwise, qxr_neon_i16;

qxr_tile_function qxr_neon_border_bias, qxr_neon_threshold, qxr_neon_rescale, qxr_neon_add, qxr_neon_clip,
    qxr_neon_max_pool, qxr_neon_sum_pool;

void qxr_neon_load(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, int32_t *x);
void qxr_neon_store(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, const int32_t *y);

/* cpu.c: what this processor and its system allow. */
int qxr_cpu_has_dotprod(void);
int qxr_cpu_has_i8mm(void);

#endif
