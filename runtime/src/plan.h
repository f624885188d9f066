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

/* Pixels and channels of a tile of a tensor; the last tile of each axis may be smaller. At most isa->tile_elements. */
void qxr_tile_shape(const qxr_isa *isa, const qxr_tensor *tensor, uint32_t threads, uint32_t *pixels,
                    uint32_t *channels);

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
