/* The range of every result, recomputed per channel from the claims for the inputs, lies within the claim for it. */
#include "check.h"

static qxr_range claimed(const qxr_check *c, const qxr_tensor *t, uint32_t channel)
{
    const qxr_claim claim = qxr_claim_of(c->model, t);
    return qxr_claimed(&claim, channel);
}

static qxr_range join(qxr_range a, qxr_range b)
{
    const qxr_range joined = {a.lo < b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi};
    return joined;
}

static qxr_range ordered(int64_t a, int64_t b)
{
    const qxr_range range = {a < b ? a : b, a < b ? b : a};
    return range;
}

static int64_t clamp(int64_t value, int32_t lo, int32_t hi)
{
    value = value < hi ? value : hi;
    return value > lo ? value : lo;
}

/* ---- each operator: its range in one channel ---- */

static qxr_range border_range(const qxr_node *node, uint32_t channel, qxr_range in)
{
    const int32_t *values = (const int32_t *)(const void *)node->constants;
    const size_t channels = node->in[0]->extent[0], classes = (size_t)(node->op->first * node->op->second);
    int32_t lo = INT32_MAX, hi = INT32_MIN;
    for (size_t i = 0; i < classes; i++) {
        const int32_t value = values[i * channels + channel];
        lo = value < lo ? value : lo;
        hi = value > hi ? value : hi;
    }
    in.lo += lo;
    in.hi += hi;
    return in;
}

/* Number of thresholds at or below a value, by bisection. */
static uint32_t code_of(const qxr_thresholds *t, size_t row, int64_t value)
{
    uint32_t low = 0, high = t->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2u;
        if (value >= t->values[middle * t->rows + row])
            low = middle + 1u;
        else
            high = middle;
    }
    return low;
}

static int64_t level_of(const qxr_thresholds *t, uint32_t code)
{
    return t->levels != NULL ? t->levels[code] : t->first + (int64_t)code * t->step;
}

static qxr_range threshold_range(const qxr_thresholds *t, int monotone, uint32_t channel, qxr_range in)
{
    const size_t row = t->rows > 1 ? channel : 0;
    const int negative = t->signs != NULL && (t->signs[row / 8u] >> row % 8u & 1) != 0;
    const uint32_t first = code_of(t, row, negative ? -in.hi : in.lo);
    const uint32_t last = code_of(t, row, negative ? -in.lo : in.hi);
    qxr_range range = ordered(level_of(t, first), level_of(t, last));
    for (uint32_t code = first + 1u; !monotone && code < last; code++) {
        range.lo = level_of(t, code) < range.lo ? level_of(t, code) : range.lo;
        range.hi = level_of(t, code) > range.hi ? level_of(t, code) : range.hi;
    }
    return range;
}

/* |x| <= 2^31, |multiplier| < 2^31 and |addend| <= 2^62, so the sum stays below 2^63. */
static qxr_range rescale_range(const qxr_node *node, uint32_t channel, qxr_range in)
{
    const qxr_op *op = node->op;
    const size_t rows = op->flags & QXR_PER_CHANNEL ? node->in[0]->extent[0] : 1u, row = rows > 1 ? channel : 0;
    const int64_t *addend = (const int64_t *)(const void *)node->constants;
    const int64_t multiplier = ((const int32_t *)(const void *)(addend + rows))[row];
    const int64_t a = qxr_shift_right(in.lo * multiplier + addend[row], op->parameter);
    const int64_t b = qxr_shift_right(in.hi * multiplier + addend[row], op->parameter);
    return ordered(clamp(a, op->first, op->second), clamp(b, op->first, op->second));
}

/* How often an input may count in a sum. A count above 2^32 serves like 2^32: only zeros stay in 32 bits then. */
static qxr_range counts_of(const qxr_node *node)
{
    const int32_t *rows = node->op->flags & QXR_FACTORS ? (const int32_t *)(const void *)node->constants : NULL;
    const int64_t limit = (int64_t)1 << 32;
    const qxr_range down = qxr_taps_inside(node, 0, rows);
    const qxr_range across = qxr_taps_inside(node, 1, rows != NULL ? rows + node->out->extent[1] : NULL);
    qxr_range counts = {limit, limit};
    if (across.lo == 0 || down.lo <= limit / across.lo)
        counts.lo = down.lo * across.lo;
    if (across.hi == 0 || down.hi <= limit / across.hi)
        counts.hi = down.hi * across.hi;
    return counts;
}

static qxr_range sum_range(qxr_range counts, qxr_range in)
{
    const qxr_range sum = {ordered(in.lo * counts.lo, in.lo * counts.hi).lo,
                           ordered(in.hi * counts.lo, in.hi * counts.hi).hi};
    return sum;
}

static qxr_range pad_range(const qxr_check *c, const qxr_node *node, uint32_t channel)
{
    const uint32_t *before = (const uint32_t *)(const void *)node->constants, *after = before + 3;
    const qxr_range zero = {0, 0};
    if (channel < before[0] || channel - before[0] >= node->in[0]->extent[0])
        return zero;
    if (before[1] | before[2] | after[1] | after[2])
        return join(zero, claimed(c, node->in[0], channel - before[0]));
    return claimed(c, node->in[0], channel - before[0]);
}

/* All input channels that a channel of the result holds elements of. */
static qxr_range reshape_range(const qxr_check *c, const qxr_node *node, uint32_t channel)
{
    const uint64_t from = (uint64_t)node->in[0]->extent[1] * node->in[0]->extent[2];
    const uint64_t to = (uint64_t)node->out->extent[1] * node->out->extent[2];
    const uint32_t first = (uint32_t)(channel * to / from), last = (uint32_t)((channel * to + to - 1u) / from);
    qxr_range hull = claimed(c, node->in[0], first);
    for (uint32_t i = first + 1u; i <= last; i++)
        hull = join(hull, claimed(c, node->in[0], i));
    return hull;
}

static qxr_range norm_range(qxr_range in)
{
    const qxr_range range = {in.lo < 0 ? -((int64_t)1 << 30) : 0, in.hi > 0 ? (int64_t)1 << 30 : 0};
    return range;
}

/* Operators whose result takes each channel from the same channel of its inputs. */
static qxr_range channelwise_range(const qxr_check *c, const qxr_node *node, uint32_t channel)
{
    qxr_range in = claimed(c, node->in[0], channel);
    switch (node->op->opcode) {
    case QXR_BORDER_BIAS:
        return border_range(node, channel, in);
    case QXR_RESCALE:
        return rescale_range(node, channel, in);
    case QXR_ADD: {
        const qxr_range other = claimed(c, node->in[1], channel);
        in.lo += other.lo;
        in.hi += other.hi;
        return in;
    }
    case QXR_CLIP:
        in.lo = clamp(in.lo, node->op->first, node->op->second);
        in.hi = clamp(in.hi, node->op->first, node->op->second);
        return in;
    case QXR_L2_NORM:
        return norm_range(in);
    default: /* max_pool */
        return in;
    }
}

static qxr_range result_range(const qxr_check *c, const qxr_node *node, uint32_t channel)
{
    const uint32_t *start = (const uint32_t *)(const void *)node->constants;
    switch (node->op->opcode) {
    case QXR_PAD:
        return pad_range(c, node, channel);
    case QXR_SLICE:
        return claimed(c, node->in[0], start[0] + channel * start[3]);
    case QXR_RESHAPE:
        return reshape_range(c, node, channel);
    default:
        return channelwise_range(c, node, channel);
    }
}

/* ---- */

static qxr_status check_threshold_ranges(qxr_check *c, const qxr_node *node)
{
    const qxr_thresholds t = qxr_thresholds_of(node);
    const qxr_claim out = qxr_claim_of(c->model, node->out);
    const int monotone = qxr_levels_are_monotone(&t);
    c->features |= t.levels != NULL ? QXR_FEATURE_LEVEL_TABLE : 0u;
    for (uint32_t i = 0; i < node->out->extent[0]; i++)
        if (!qxr_within(&out, i, threshold_range(&t, monotone, i, claimed(c, node->in[0], i))))
            return QXR_ERROR_RANGE;
    return QXR_OK;
}

static qxr_status check_sum_ranges(const qxr_check *c, const qxr_node *node)
{
    const qxr_claim out = qxr_claim_of(c->model, node->out);
    const qxr_range counts = counts_of(node);
    for (uint32_t i = 0; i < node->out->extent[0]; i++)
        if (!qxr_within(&out, i, sum_range(counts, claimed(c, node->in[0], i))))
            return QXR_ERROR_RANGE;
    return QXR_OK;
}

/* Along axis 0 the inputs' channels follow each other; otherwise every input has all channels of the result. */
static qxr_status check_concat_ranges(const qxr_check *c, const qxr_node *node)
{
    const qxr_claim out = qxr_claim_of(c->model, node->out);
    const uint16_t *inputs;
    const uint32_t count = qxr_inputs_of(c->model, node->op, &inputs);
    uint32_t first = 0;
    for (uint32_t i = 0; i < count; i++) {
        const qxr_tensor *in = qxr_get_tensor(c->model, inputs[i]);
        for (uint32_t k = 0; k < in->extent[0]; k++)
            if (!qxr_within(&out, first + k, claimed(c, in, k)))
                return QXR_ERROR_RANGE;
        first += node->op->first == 0 ? in->extent[0] : 0u;
    }
    return QXR_OK;
}

/* Where another axis becomes the channels, each holds elements of all channels. */
static qxr_status check_transpose_ranges(const qxr_check *c, const qxr_node *node)
{
    const qxr_claim out = qxr_claim_of(c->model, node->out);
    const int keeps = (node->op->parameter & 3u) == 0;
    qxr_range hull = claimed(c, node->in[0], 0);
    for (uint32_t i = 1; !keeps && i < node->in[0]->extent[0]; i++)
        hull = join(hull, claimed(c, node->in[0], i));
    for (uint32_t i = 0; i < node->out->extent[0]; i++)
        if (!qxr_within(&out, i, keeps ? claimed(c, node->in[0], i) : hull))
            return QXR_ERROR_RANGE;
    return QXR_OK;
}

qxr_status qxr_check_ranges(qxr_check *c, const qxr_node *node)
{
    const qxr_claim out = qxr_claim_of(c->model, node->out);
    switch (node->op->opcode) {
    case QXR_CONV2D:
        return qxr_check_conv(c, node);
    case QXR_THRESHOLD:
        return check_threshold_ranges(c, node);
    case QXR_SUM_POOL:
        return check_sum_ranges(c, node);
    case QXR_CONCAT:
        return check_concat_ranges(c, node);
    case QXR_TRANSPOSE:
        return check_transpose_ranges(c, node);
    default:
        break;
    }
    for (uint32_t i = 0; i < node->out->extent[0]; i++)
        if (!qxr_within(&out, i, result_range(c, node, i)))
            return QXR_ERROR_RANGE;
    return QXR_OK;
}
