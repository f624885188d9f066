#include "check.h"
#include "weights.h"

static int all_zero(const uint8_t *bytes, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        if (bytes[i] != 0)
            return 0;
    return 1;
}

qxr_status qxr_place(qxr_check *c, uint32_t offset, uint64_t size)
{
    uint32_t end, next;
    if (size == 0)
        return offset == 0 ? QXR_OK : QXR_ERROR_LAYOUT;
    if (offset != c->cursor || size > c->header->metadata_offset - c->cursor)
        return QXR_ERROR_LAYOUT;
    end = c->cursor + (uint32_t)size;
    next = (end + QXR_ALIGN - 1u) / QXR_ALIGN * QXR_ALIGN; /* not behind the metadata, whose offset is a multiple too */
    c->cursor = next;
    return all_zero(c->model->bytes + end, next - end) ? QXR_OK : QXR_ERROR_PADDING;
}

/* How many channels have constants of their own. */
static uint64_t rows_of(const qxr_node *node)
{
    return node->op->flags & QXR_PER_CHANNEL ? node->in[0]->extent[0] : 1u;
}

static uint64_t threshold_bytes(const qxr_node *node)
{
    const uint64_t rows = rows_of(node), steps = node->op->count;
    const uint64_t table = node->op->flags & QXR_LEVEL_TABLE ? 4u * (steps + 1u) : 0u;
    return 4u * steps * rows + table + (node->op->flags & QXR_SIGNS ? (rows + 7u) / 8u : 0u);
}

static uint64_t border_bytes(const qxr_node *node)
{
    const uint64_t classes = (uint64_t)node->op->first * (uint64_t)node->op->second;
    return 4u * classes * node->in[0]->extent[0] + node->in[0]->extent[1] + node->in[0]->extent[2];
}

/* Bytes of an operator's constants; UINT64_MAX where a row of weights is too long. */
static uint64_t constant_bytes(const qxr_model *model, const qxr_node *node)
{
    qxr_weights w;
    switch (node->op->opcode) {
    case QXR_CONV2D:
        w = qxr_weights_of(model, node->index);
        return w.length > INT32_MAX ? UINT64_MAX : qxr_weights_bytes(&w);
    case QXR_BORDER_BIAS:
        return border_bytes(node);
    case QXR_THRESHOLD:
        return threshold_bytes(node);
    case QXR_RESCALE:
        return 12u * rows_of(node);
    case QXR_SUM_POOL:
        return node->op->flags & QXR_FACTORS ? 4u * ((uint64_t)node->out->extent[1] + node->out->extent[2]) : 0u;
    case QXR_PAD:
    case QXR_SLICE:
        return 24u;
    case QXR_CONCAT:
        return 2u * (uint64_t)node->op->count;
    default:
        return 0;
    }
}

qxr_status qxr_place_constants(qxr_check *c, const qxr_node *node)
{
    const qxr_op *op = node->op;
    const uint64_t size = constant_bytes(c->model, node);
    return op->constant_size == size ? qxr_place(c, op->constant_offset, size) : QXR_ERROR_LAYOUT;
}

static qxr_status check_border(const qxr_node *node)
{
    const uint32_t *extent = node->in[0]->extent;
    const uint32_t classes = (uint32_t)(node->op->first * node->op->second);
    const uint8_t *row = node->constants + 4u * (size_t)classes * extent[0], *column = row + extent[1];
    for (uint32_t i = 0; i < extent[1]; i++)
        if (row[i] >= node->op->first)
            return QXR_ERROR_CONSTANTS;
    for (uint32_t i = 0; i < extent[2]; i++)
        if (column[i] >= node->op->second)
            return QXR_ERROR_CONSTANTS;
    return QXR_OK;
}

qxr_thresholds qxr_thresholds_of(const qxr_node *node)
{
    const qxr_op *op = node->op;
    const int32_t *next = (const int32_t *)(const void *)node->constants;
    qxr_thresholds t = {next, NULL, NULL, (size_t)rows_of(node), op->count, op->first, op->second};
    next += t.count * t.rows;
    if (op->flags & QXR_LEVEL_TABLE) {
        t.levels = next;
        next += t.count + 1u;
    }
    if (op->flags & QXR_SIGNS)
        t.signs = (const uint8_t *)next;
    return t;
}

int qxr_levels_are_monotone(const qxr_thresholds *t)
{
    int rises = 0, falls = 0;
    for (uint32_t i = 0; t->levels != NULL && i < t->count; i++) {
        rises |= t->levels[i + 1] > t->levels[i];
        falls |= t->levels[i + 1] < t->levels[i];
    }
    return !(rises && falls);
}

static qxr_status check_threshold(qxr_check *c, const qxr_node *node)
{
    const qxr_thresholds t = qxr_thresholds_of(node);
    const int64_t last = t.first + t.count * (int64_t)t.step;
    const size_t values = t.count * t.rows;
    for (size_t i = t.rows; i < values; i++)
        if (t.values[i] < t.values[i - t.rows])
            return QXR_ERROR_CONSTANTS;
    if (last < INT32_MIN || last > INT32_MAX)
        return QXR_ERROR_CONSTANTS;
    if (t.signs != NULL && t.rows % 8u != 0 && t.signs[t.rows / 8u] >> t.rows % 8u != 0)
        return QXR_ERROR_PADDING;
    if (t.signs != NULL && node->in[0]->lo == INT32_MIN)
        return QXR_ERROR_ACCUMULATOR;
    return qxr_levels_are_monotone(&t) ? QXR_OK : qxr_spend(c, (uint64_t)node->in[0]->extent[0] * (t.count + 1u));
}

static qxr_status check_rescale(const qxr_node *node)
{
    const size_t rows = (size_t)rows_of(node);
    const int64_t *addend = (const int64_t *)(const void *)node->constants, limit = (int64_t)1 << 62;
    const int32_t *multiplier = (const int32_t *)(const void *)(addend + rows);
    for (size_t i = 0; i < rows; i++)
        if (addend[i] < -limit || addend[i] > limit || multiplier[i] == INT32_MIN)
            return QXR_ERROR_CONSTANTS;
    return QXR_OK;
}

static qxr_status check_factors(const qxr_node *node)
{
    const int32_t *factors = (const int32_t *)(const void *)node->constants;
    const uint64_t count = (uint64_t)node->out->extent[1] + node->out->extent[2];
    for (uint64_t i = 0; (node->op->flags & QXR_FACTORS) && i < count; i++)
        if (factors[i] < 1)
            return QXR_ERROR_CONSTANTS;
    return QXR_OK;
}

/* The sum of squares that a norm takes the root of. */
static qxr_status check_norm(const qxr_check *c, const qxr_node *node)
{
    const qxr_claim in = qxr_claim_of(c->model, node->in[0]);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < node->in[0]->extent[0]; i++) {
        const qxr_range x = qxr_claimed(&in, i);
        const int64_t lo = x.lo, hi = x.hi;
        sum += (uint64_t)(lo * lo > hi * hi ? lo * lo : hi * hi); /* at most 2^62 each */
        if (sum >= (uint64_t)1 << 62)
            return QXR_ERROR_ACCUMULATOR;
    }
    return QXR_OK;
}

qxr_status qxr_check_constants(qxr_check *c, const qxr_node *node)
{
    switch (node->op->opcode) {
    case QXR_BORDER_BIAS:
        return check_border(node);
    case QXR_THRESHOLD:
        return check_threshold(c, node);
    case QXR_RESCALE:
        return check_rescale(node);
    case QXR_SUM_POOL:
        return check_factors(node);
    case QXR_L2_NORM:
        return check_norm(c, node);
    default:
        return QXR_OK;
    }
}
