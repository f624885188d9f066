#include "op_model.h"

#include <stdlib.h>
#include <string.h>

enum { TENSORS = 64, OPERATOR = TENSORS + 3 * 32, CONSTANTS = OPERATOR + 48, SLACK = 64, SPAN = 60000 };

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static int32_t some_value(uint32_t *state) { return (int32_t)(next_random(state) % (2u * SPAN)) - SPAN; }

static void *take(size_t bytes)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes + SLACK) != 0)
        exit(2);
    memset(memory, 0, bytes + SLACK);
    return memory;
}

static qxr_tensor *tensor_at(uint8_t *bytes, uint32_t index)
{
    return (qxr_tensor *)(void *)(bytes + TENSORS) + index;
}

static void fill_tensor(qxr_tensor *t, uint32_t storage, uint32_t c, uint32_t h, uint32_t w)
{
    t->storage_slot = (uint8_t)storage;
    t->rank_flags = 3;
    t->extent[0] = c;
    t->extent[1] = h;
    t->extent[2] = w;
    t->lo = storage == QXR_U8 ? -7 : -SPAN;
    t->hi = storage == QXR_U8 ? 248 : SPAN;
}

static uint32_t pooled(const qxr_op_row *row, uint32_t size)
{
    const uint32_t stride = row->window == size ? 1u : 2u;
    return (size - row->window) / stride + 1u;
}

static void fill_result(const qxr_op_row *row, qxr_tensor *t)
{
    if (row->window)
        fill_tensor(t, QXR_VIRTUAL, row->channels, pooled(row, row->height), pooled(row, row->width));
    else if (row->opcode == QXR_RESHAPE)
        fill_tensor(t, QXR_VIRTUAL, row->channels * row->height * row->width, 1, 1);
    else if (row->opcode == QXR_TRANSPOSE)
        fill_tensor(t, QXR_VIRTUAL, row->width, row->height, row->channels);
    else
        fill_tensor(t, QXR_VIRTUAL, row->channels, row->height, row->width);
}

static void fill_op(const qxr_op_row *row, qxr_op *op)
{
    op->opcode = (uint8_t)row->opcode;
    op->version = 1;
    op->flags = (uint8_t)row->flags;
    op->parameter = (uint8_t)row->parameter;
    op->input[1] = row->opcode == QXR_ADD ? 1 : QXR_NONE16;
    op->constant_offset = CONSTANTS;
    op->count = (uint16_t)row->count;
    op->window[0] = op->window[1] = (uint16_t)row->window;
    op->stride[0] = op->stride[1] = row->window == row->height ? 1 : 2;
    op->dilation[0] = op->dilation[1] = 1;
    op->first = row->opcode == QXR_THRESHOLD ? 0 : row->opcode == QXR_BORDER_BIAS ? 3 : -5000;
    op->second = row->opcode == QXR_THRESHOLD ? 1 : row->opcode == QXR_BORDER_BIAS ? 3 : 5000;
}

/* Thresholds that ascend, levels, signs; addends and multipliers; biases of 3 x 3 classes. */
static void fill_constants(const qxr_op_row *row, uint8_t *at, uint32_t *state)
{
    const uint32_t width = row->flags & QXR_PER_CHANNEL ? row->channels : 1u;
    int32_t *next = (int32_t *)(void *)at;
    if (row->opcode == QXR_THRESHOLD) {
        for (uint32_t i = 0; i < row->count * width; i++)
            *next++ = (int32_t)((i / width * 2u + next_random(state) % 2u) * (2u * SPAN / (2u * row->count + 1u))) - SPAN;
        for (uint32_t i = 0; i <= row->count && row->flags & QXR_LEVEL_TABLE; i++)
            *next++ = some_value(state);
        for (uint32_t i = 0; i < (width + 7u) / 8u && row->flags & QXR_SIGNS; i++)
            ((uint8_t *)next)[i] = (uint8_t)next_random(state);
    } else if (row->opcode == QXR_RESCALE) {
        for (uint32_t i = 0; i < width; i++)
            ((int64_t *)(void *)at)[i] = (int64_t)some_value(state) * 1024;
        for (uint32_t i = 0; i < width; i++)
            ((int32_t *)(void *)(at + 8u * width))[i] = some_value(state) % (row->count ? 1 << row->count : 2 * SPAN);
    } else if (row->opcode == QXR_BORDER_BIAS) {
        for (uint32_t i = 0; i < 9u * row->channels; i++)
            *next++ = some_value(state);
        for (uint32_t i = 0; i < row->height + row->width; i++)
            ((uint8_t *)next)[i] = (uint8_t)(next_random(state) % 3u);
    }
}

void qxr_make_op_model(const qxr_op_row *row, qxr_op_model *made)
{
    const size_t constants = 8u * (size_t)(row->count + 16u) * row->channels + 4u * row->count + 2u * (row->height + row->width);
    const size_t elements = (size_t)row->channels * row->height * row->width;
    uint32_t state = 1;
    qxr_header *header;
    memset(made, 0, sizeof *made);
    made->bytes = take(CONSTANTS + constants);
    header = (qxr_header *)(void *)made->bytes;
    header->tensor_count = 3;
    header->op_count = 1;
    header->input_count = 2;
    header->tensors_offset = TENSORS;
    header->ops_offset = OPERATOR;
    fill_tensor(tensor_at(made->bytes, 0), row->storage, row->channels, row->height, row->width);
    fill_tensor(tensor_at(made->bytes, 1), row->storage, row->channels, row->height, row->width);
    fill_result(row, tensor_at(made->bytes, 2));
    fill_op(row, (qxr_op *)(void *)(made->bytes + OPERATOR));
    fill_constants(row, made->bytes + CONSTANTS, &state);
    made->input = take(2u * elements * sizeof(int32_t));
    for (size_t i = 0; i < 2u * elements; i++)
        if (row->storage == QXR_I32)
            ((int32_t *)(void *)made->input)[i] = some_value(&state);
        else
            made->input[i] = (uint8_t)next_random(&state);
    made->model.bytes = made->bytes;
    made->work.model = &made->model;
    made->work.op = qxr_get_op(&made->model, 0);
    made->work.in[0] = tensor_at(made->bytes, 0);
    made->work.out = tensor_at(made->bytes, 2);
    made->work.arena = made->input;
}

void qxr_free_op_model(qxr_op_model *made)
{
    free(made->bytes);
    free(made->input);
}
