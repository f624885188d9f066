#include "check.h"

/* NUMBERS: first and second. */
enum { WINDOW = 1, PARAMETER = 2, GROUPS = 4, COUNT = 8, NUMBERS = 16, ELEMENTWISE = 32 };

/* What each opcode uses of its record. */
static const struct {
    uint8_t flags, inputs, uses;
} rules[QXR_OPCODES] = {
    [QXR_CONV2D] = {QXR_JOINS | QXR_CONV_BASE3, 1, WINDOW | PARAMETER | GROUPS | COUNT},
    [QXR_BORDER_BIAS] = {QXR_JOINS, 1, NUMBERS | ELEMENTWISE},
    [QXR_THRESHOLD] = {QXR_JOINS | QXR_PER_CHANNEL | QXR_SIGNS | QXR_LEVEL_TABLE, 1, COUNT | NUMBERS | ELEMENTWISE},
    [QXR_RESCALE] = {QXR_JOINS | QXR_PER_CHANNEL, 1, PARAMETER | NUMBERS | ELEMENTWISE},
    [QXR_ADD] = {QXR_JOINS, 2, ELEMENTWISE},
    [QXR_CLIP] = {QXR_JOINS, 1, NUMBERS | ELEMENTWISE},
    [QXR_MAX_POOL] = {QXR_JOINS, 1, WINDOW},
    [QXR_SUM_POOL] = {QXR_JOINS | QXR_FACTORS, 1, WINDOW},
    [QXR_PAD] = {QXR_JOINS, 1, 0},
    [QXR_SLICE] = {QXR_JOINS, 1, 0},
    [QXR_CONCAT] = {QXR_JOINS, 0, COUNT | NUMBERS},
    [QXR_RESHAPE] = {QXR_JOINS, 1, 0},
    [QXR_TRANSPOSE] = {QXR_JOINS, 1, PARAMETER},
    [QXR_L2_NORM] = {QXR_JOINS, 1, 0},
};

int qxr_is_elementwise(const qxr_op *op) { return (rules[op->opcode].uses & ELEMENTWISE) != 0; }

static int window_is_zero(const qxr_op *op)
{
    const uint32_t taps = op->window[0] | op->window[1] | op->dilation[0] | op->dilation[1];
    const uint32_t strides = op->stride[0] | op->stride[1];
    return (taps | strides | op->padding[0] | op->padding[1] | op->padding[2] | op->padding[3]) == 0;
}

static int unused_is_zero(const qxr_op *op)
{
    const uint32_t uses = rules[op->opcode].uses;
    return (op->flags & ~(uint32_t)rules[op->opcode].flags) == 0 && ((uses & WINDOW) || window_is_zero(op)) &&
           ((uses & PARAMETER) || op->parameter == 0) && ((uses & GROUPS) || op->groups == 0) &&
           ((uses & COUNT) || op->count == 0) && ((uses & NUMBERS) || (op->first | op->second) == 0);
}

/* count = 0: numbers of 2 to 32 bits; else codes of up to 8 bits that reach every entry of the codebook. */
static int conv_is_valid(const qxr_op *op)
{
    const uint32_t bits = op->parameter;
    if (op->groups == 0)
        return 0;
    if (op->flags & QXR_CONV_BASE3)
        return bits == 2 && op->count == 3;
    if (op->count == 0)
        return bits >= 2 && bits <= 32;
    return bits >= 1 && bits <= 8 && op->count <= 1u << bits;
}

static int parameters_are_valid(const qxr_op *op)
{
    switch (op->opcode) {
    case QXR_CONV2D:
        return conv_is_valid(op);
    case QXR_BORDER_BIAS:
        return op->first >= 1 && op->first <= 256 && op->second >= 1 && op->second <= 256;
    case QXR_THRESHOLD:
        return op->count <= QXR_MAX_STEPS && (!(op->flags & QXR_LEVEL_TABLE) || (op->first | op->second) == 0);
    case QXR_RESCALE:
        return op->parameter <= 62 && op->first <= op->second;
    case QXR_CLIP:
        return op->first <= op->second;
    case QXR_SUM_POOL:
        return op->dilation[0] == 1 && op->dilation[1] == 1;
    case QXR_TRANSPOSE:
        return op->parameter < 64;
    case QXR_CONCAT:
        return op->count >= 1 && op->first >= 0 && op->first <= 2 && op->second == 0;
    default:
        return 1;
    }
}

qxr_status qxr_check_record(const qxr_op *op)
{
    if (op->opcode == 0 || op->opcode >= QXR_OPCODES || op->version != 1)
        return QXR_ERROR_OPCODE;
    if (!unused_is_zero(op))
        return QXR_ERROR_PADDING;
    for (uint32_t i = 0; i < 2; i++)
        if (i >= rules[op->opcode].inputs && op->input[i] != QXR_NONE16)
            return QXR_ERROR_OPERATOR;
    for (uint32_t axis = 0; (rules[op->opcode].uses & WINDOW) && axis < 2; axis++)
        if (op->window[axis] == 0 || op->stride[axis] == 0 || op->dilation[axis] == 0)
            return QXR_ERROR_OPERATOR;
    return parameters_are_valid(op) ? QXR_OK : QXR_ERROR_OPERATOR;
}
