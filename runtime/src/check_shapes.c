#include "check.h"

/* One axis of a sliding window. */
typedef struct span {
    int64_t size, before, after, window, stride, dilation;
} span;

static span span_of(const qxr_node *node, uint32_t axis)
{
    const qxr_op *op = node->op;
    const span s = {node->in[0]->extent[1 + axis], op->padding[2 * axis], op->padding[2 * axis + 1],
                    op->window[axis], op->stride[axis], op->dilation[axis]};
    return s;
}

/* 0 where the window is larger than the padded axis. */
static int64_t span_extent(const span *s)
{
    const int64_t room = s->size + s->before + s->after - (s->dilation * (s->window - 1) + 1);
    return room < 0 ? 0 : room / s->stride + 1;
}

/* Taps of window i that lie inside the axis. */
static int64_t taps_inside(const span *s, int64_t i)
{
    const int64_t start = i * s->stride - s->before, room = s->size - 1 - start;
    const int64_t first = start < 0 ? (-start + s->dilation - 1) / s->dilation : 0;
    const int64_t end = room < 0 ? 0 : room / s->dilation + 1;
    const int64_t count = (end < s->window ? end : s->window) - first;
    return count > 0 ? count : 0;
}

qxr_range qxr_taps_inside(const qxr_node *node, uint32_t axis, const int32_t *factors)
{
    const span s = span_of(node, axis);
    qxr_range taps = {INT64_MAX, 0};
    for (uint32_t i = 0; i < node->out->extent[1 + axis]; i++) {
        const int64_t count = taps_inside(&s, i) * (factors != NULL ? factors[i] : 1);
        taps.lo = count < taps.lo ? count : taps.lo;
        taps.hi = count > taps.hi ? count : taps.hi;
    }
    return taps;
}

static int windows_fit(const qxr_node *node)
{
    const span down = span_of(node, 0), across = span_of(node, 1);
    return span_extent(&down) == node->out->extent[1] && span_extent(&across) == node->out->extent[2];
}

static int window_is_plain(const qxr_op *op)
{
    int plain = 1;
    for (uint32_t axis = 0; axis < 2; axis++)
        plain &= op->window[axis] == 1 && op->stride[axis] == 1 && op->dilation[axis] == 1;
    return plain; /* and padding would make a second pixel */
}

static int conv_fits(const qxr_node *node)
{
    if (node->in[0]->extent[0] % node->op->groups != 0 || node->out->extent[0] % node->op->groups != 0)
        return 0;
    if (qxr_rank(node->in[0]) != 3 && (qxr_rank(node->in[0]) != 1 || !window_is_plain(node->op)))
        return 0;
    return windows_fit(node);
}

static int same_extents(const qxr_tensor *a, const qxr_tensor *b)
{
    return a->extent[0] == b->extent[0] && a->extent[1] == b->extent[1] && a->extent[2] == b->extent[2];
}

static int pad_fits(const qxr_node *node)
{
    const uint32_t *before = (const uint32_t *)(const void *)node->constants, *after = before + 3;
    for (uint32_t axis = 0; axis < 3; axis++)
        if ((uint64_t)node->in[0]->extent[axis] + before[axis] + after[axis] != node->out->extent[axis])
            return 0;
    return 1;
}

/* The last element taken lies inside; (2^32 - 1)^2 + 2^32 - 1 fits 64 bits. */
static int slice_fits(const qxr_node *node)
{
    const uint32_t *start = (const uint32_t *)(const void *)node->constants, *step = start + 3;
    for (uint32_t axis = 0; axis < 3; axis++) {
        const uint64_t last = start[axis] + (uint64_t)(node->out->extent[axis] - 1u) * step[axis];
        if (step[axis] == 0 || last >= node->in[0]->extent[axis])
            return 0;
        if (axis >= qxr_rank(node->in[0]) && step[axis] != 1)
            return 0;
    }
    return 1;
}

static int concat_fits(const qxr_check *c, const qxr_node *node)
{
    const uint16_t *inputs;
    const uint32_t count = qxr_inputs_of(c->model, node->op, &inputs), along = (uint32_t)node->op->first;
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        const qxr_tensor *in = qxr_get_tensor(c->model, inputs[i]);
        for (uint32_t axis = 0; axis < 3; axis++)
            if (axis != along && in->extent[axis] != node->out->extent[axis])
                return 0;
        if (qxr_rank(in) != qxr_rank(node->out))
            return 0;
        total += in->extent[along];
    }
    return total == node->out->extent[along];
}

static int transpose_fits(const qxr_node *node)
{
    uint32_t axes = node->op->parameter, seen = 0;
    for (uint32_t axis = 0; axis < 3; axis++, axes >>= 2) {
        const uint32_t from = axes & 3u;
        if (from > 2 || (axis >= qxr_rank(node->out) && from != axis))
            return 0;
        if (node->in[0]->extent[from] != node->out->extent[axis])
            return 0;
        seen |= 1u << from;
    }
    return seen == 7;
}

static int fits(const qxr_check *c, const qxr_node *node)
{
    const qxr_tensor *in = node->in[0], *out = node->out;
    switch (node->op->opcode) {
    case QXR_CONV2D:
        return conv_fits(node);
    case QXR_MAX_POOL:
    case QXR_SUM_POOL:
        return qxr_rank(in) == 3 && in->extent[0] == out->extent[0] && windows_fit(node);
    case QXR_PAD:
        return pad_fits(node);
    case QXR_SLICE:
        return slice_fits(node);
    case QXR_CONCAT:
        return concat_fits(c, node);
    case QXR_RESHAPE:
        return qxr_elements64(in) == qxr_elements64(out);
    case QXR_TRANSPOSE:
        return transpose_fits(node);
    case QXR_ADD:
        return same_extents(in, out) && same_extents(node->in[1], out) && qxr_rank(node->in[1]) == qxr_rank(out);
    default:
        return same_extents(in, out);
    }
}

/* Every window of a max_pool touches its input. The ranges of a sum_pool count taps as well, hence the effort. */
static qxr_status check_pool(qxr_check *c, const qxr_node *node)
{
    QXR_TRY(qxr_spend(c, (uint64_t)node->out->extent[1] + node->out->extent[2]));
    for (uint32_t axis = 0; node->op->opcode == QXR_MAX_POOL && axis < 2; axis++)
        if (qxr_taps_inside(node, axis, NULL).lo == 0)
            return QXR_ERROR_SHAPE;
    return QXR_OK;
}

qxr_status qxr_check_shape(qxr_check *c, const qxr_node *node)
{
    const uint8_t opcode = node->op->opcode;
    if (opcode != QXR_RESHAPE && opcode != QXR_CONCAT && qxr_rank(node->in[0]) != qxr_rank(node->out))
        return QXR_ERROR_SHAPE;
    if (!fits(c, node))
        return QXR_ERROR_SHAPE;
    return opcode == QXR_MAX_POOL || opcode == QXR_SUM_POOL ? check_pool(c, node) : QXR_OK;
}
