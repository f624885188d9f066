/* How a run divides its work: tiles, and the memory behind the file's arena that each thread needs for them. */
#ifndef QXR_PLAN_H
#define QXR_PLAN_H

#include "kernels.h"

/* Working memory of one thread: slots [elements] each, a spare tile for a second operand, what the convolutions ask. */
typedef struct qxr_scratch {
    uint32_t elements, slots, spares;
    size_t conv_bytes, bytes;
} qxr_scratch;

qxr_scratch qxr_plan_scratch(const qxr_model *model);

/* Bytes of the file's arena and the memory of some threads behind it. */
size_t qxr_scratch_end(const qxr_model *model, const qxr_scratch *scratch, uint32_t threads);

/* Bytes of weights that a tile of all channels goes through; 0 without a convolution. */
size_t qxr_weight_bytes(const qxr_conv_kernel *kernel, const qxr_conv *conv);

/* Pixels and channels of a tile of a tensor; the last tile of each axis may be smaller. At most isa->tile_elements.
 * `weights`: see qxr_weight_bytes. */
void qxr_tile_shape(const qxr_isa *isa, const qxr_tensor *tensor, size_t weights, uint32_t *pixels, uint32_t *channels);

/* How the threads share a tensor: parts of equal size along its pixels or its channels, in whole units but for the
 * last. A part of its pixels is at most a tile wide; each thread takes the next one when it is done, so that one that is
 * slower, or disturbed, takes fewer. */
typedef struct qxr_shares {
    uint32_t threads, count, unit;
    int by_channel;
} qxr_shares;

/* `products`: multiplications of one element; what is little work stays with one thread. `tile`: pixels of a tile. */
qxr_shares qxr_share(const qxr_tensor *tensor, size_t weights, uint32_t products, uint32_t tile, uint32_t threads);

/* First of `all` pixels or channels of part i; part `count` begins behind the last. */
static inline uint32_t qxr_share_begin(const qxr_shares *s, uint32_t all, uint32_t i)
{
    const uint32_t units = (all - 1u) / s->unit + 1u, at = (uint32_t)((uint64_t)units * i / s->count) * s->unit;
    return at < all ? at : all;
}

/* Whether the operator reads its input i from a slot: the group of operators from `first` on makes it. */
static inline int qxr_from_slot(const qxr_model *model, const qxr_op *op, uint32_t first, uint32_t i)
{
    return op->input[i] != QXR_NONE16 && op->input[i] >= qxr_get_header(model)->input_count + first;
}

static inline int qxr_is_elementwise(const qxr_op *op)
{
    return op->opcode >= QXR_BORDER_BIAS && op->opcode <= QXR_CLIP;
}

/* Bytes of the packed weights of one operator, a multiple of 64; 0 for none. */
size_t qxr_packed_bytes(const qxr_model *model, uint32_t op_index);

#endif
