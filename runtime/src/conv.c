/* What the kernels of a convolution need to know, derived from its records. */
#include "kernels.h"

static uint32_t magnitude(int32_t value) { return value < 0 ? 0u - (uint32_t)value : (uint32_t)value; }

/* The largest magnitude a weight can have by its coding, without a look at the rows. */
static uint32_t weight_peak(const qxr_model *model, const qxr_op *op)
{
    const int32_t *codebook = (const int32_t *)(const void *)(model->bytes + op->constant_offset);
    if (op->count == 0u)
        return qxr_min(1u << (op->parameter - 1u), QXR_MAX_WEIGHT);
    /* The codebook ascends. */
    return qxr_max(magnitude(codebook[0]), magnitude(codebook[op->count - 1u]));
}

static uint32_t input_peak(const qxr_tensor *in)
{
    if (qxr_storage(in) == QXR_U8)
        return (uint32_t)in->hi - (uint32_t)qxr_base(in);
    return qxr_max(magnitude(in->lo), magnitude(in->hi));
}

void qxr_describe_conv(const qxr_model *model, uint32_t op_index, qxr_conv *conv)
{
    const qxr_op *op = qxr_get_op(model, op_index);
    conv->op = op;
    conv->in = qxr_get_tensor(model, op->input[0]);
    conv->out = qxr_get_tensor(model, qxr_get_header(model)->input_count + op_index);
    conv->weights = qxr_weights_of(model, op_index);
    conv->group_in = conv->in->extent[0] / op->groups;
    conv->group_out = conv->out->extent[0] / op->groups;
    conv->row = (uint32_t)conv->weights.length;
    conv->base = qxr_storage(conv->in) == QXR_U8 ? qxr_base(conv->in) : 0;
    conv->input_peak = qxr_max(input_peak(conv->in), magnitude(conv->base));
    conv->weight_peak = weight_peak(model, op);
}
