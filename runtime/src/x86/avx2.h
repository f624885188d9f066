/* The AVX2 kernels, which later instruction sets of x86 use where they have none of their own. */
#ifndef QXR_AVX2_H
#define QXR_AVX2_H

#include "scalar/scalar.h"
#include "vector/rows.h"

extern const qxr_conv_kernel qxr_avx2_u8, qxr_avx2_table, qxr_avx2_winograd, qxr_avx2_i16, qxr_avx2_depthwise;

qxr_tile_function qxr_avx2_border_bias, qxr_avx2_threshold, qxr_avx2_rescale, qxr_avx2_add, qxr_avx2_clip,
    qxr_avx2_max_pool, qxr_avx2_sum_pool;

int qxr_avx2_chain(const qxr_chain *chain, const qxr_tile *tile);
int qxr_avx2_whole_chain(const qxr_conv_kernel *kernel, const qxr_conv *conv, const qxr_conv_buffers *buffers,
                         const qxr_chain *chain, const qxr_tile *tile);

/* avx2_pool.c: a maximum pool alone in its group, of bytes to bytes of the same base. Returns 0, with nothing done, for
 * any other group. */
int qxr_avx2_pool_bytes(const qxr_chain *chain, const qxr_tile *tile);
void qxr_avx2_load(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, int32_t *x);
void qxr_avx2_store(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, const int32_t *y);
void qxr_avx2_interleave(const uint8_t *planes, size_t pixels, uint8_t *to);

/* cpu.c: what this processor and its system allow. */
int qxr_cpu_has_avx2(void);
int qxr_cpu_has_avx512vnni(void);
int qxr_cpu_has_avx512vpopcntdq(void);
int qxr_cpu_has_amx(void);

#endif
