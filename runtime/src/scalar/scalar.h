/* The portable kernels, one for each operator; docs/packed-format.md section 4 defines them. */
#ifndef QXR_SCALAR_H
#define QXR_SCALAR_H

#include "kernels.h"

qxr_tile_function qxr_scalar_border_bias, qxr_scalar_threshold, qxr_scalar_rescale, qxr_scalar_add,
    qxr_scalar_clip, qxr_scalar_max_pool, qxr_scalar_sum_pool, qxr_scalar_pad, qxr_scalar_slice, qxr_scalar_concat,
    qxr_scalar_reshape, qxr_scalar_transpose, qxr_scalar_l2_norm;

/* Elements [first, first + count) of a stored tensor, as values. */
void qxr_scalar_load_run(const qxr_tensor *tensor, const uint8_t *data, size_t first, size_t count, int32_t *x);

void qxr_scalar_store_run(const qxr_tensor *tensor, uint8_t *data, size_t first, size_t count, const int32_t *y);

/* Averages over the pixels inside the image are sums with a factor per row and column of the result, where there are
 * factors. */
void qxr_multiply_factors(const qxr_work *work, const qxr_tile *tile, int32_t *y);

void qxr_scalar_load(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, int32_t *x);
void qxr_scalar_store(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, const int32_t *y);
void qxr_scalar_interleave(const uint8_t *planes, size_t pixels, uint8_t *to);

#endif
