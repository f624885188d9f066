#include "conv_model.h"

#include <stdlib.h>
#include <string.h>

enum { INPUT_SLACK = 64 };

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static uint32_t out_extent(const qxr_shape *s, uint32_t size)
{
    return (size + 2u * s->padding - (s->dilation * (s->window - 1u) + 1u)) / s->stride + 1u;
}

static void *take(size_t bytes)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes + 1u) != 0)
        exit(2);
    memset(memory, 0, bytes);
    return memory;
}

static void fill_tensor(qxr_tensor *t, uint32_t storage, uint32_t c, uint32_t h, uint32_t w, int32_t lo, int32_t hi)
{
    t->storage_slot = (uint8_t)storage;
    t->rank_flags = 3;
    t->extent[0] = c;
    t->extent[1] = h;
    t->extent[2] = w;
    t->lo = lo;
    t->hi = hi;
}

static void fill_op(const qxr_shape *s, qxr_op *op, uint32_t constants)
{
    const uint16_t padding = (uint16_t)s->padding;
    const int base3 = s->entries == 3u && s->bits == 2u;
    op->opcode = QXR_CONV2D;
    op->version = 1;
    op->parameter = (uint8_t)s->bits;
    op->flags = base3 ? QXR_CONV_BASE3 : 0;
    op->input[1] = QXR_NONE16;
    op->constant_offset = constants;
    op->window[0] = op->window[1] = (uint16_t)s->window;
    op->stride[0] = op->stride[1] = (uint16_t)s->stride;
    op->dilation[0] = op->dilation[1] = (uint16_t)s->dilation;
    op->padding[0] = op->padding[1] = op->padding[2] = op->padding[3] = padding;
    op->groups = (uint16_t)s->groups;
    op->count = (uint16_t)s->entries;
}

/* -1, 1; -1, 0, 1; -2, -1, 1, 2; -4, -2, -1, 0, 1, 2, 4 */
static void fill_codebook(const qxr_shape *s, int32_t *codebook)
{
    for (uint32_t i = 0; i < s->entries; i++) {
        const int32_t n = (int32_t)(2u * i) - (int32_t)(s->entries - 1u), half = (n < 0 ? -n : n) / 2;
        const int32_t size = s->entries % 2u == 0u ? 1 << half : half == 0 ? 0 : 1 << (half - 1);
        codebook[i] = n < 0 ? -size : size;
    }
}

/* A code below the number of entries; any bits for two's complement, though none above the largest weight. */
static void fill_row(const qxr_shape *s, uint8_t *row, uint64_t length, uint32_t *state)
{
    for (uint64_t k = 0; k < length; k++) {
        const uint32_t random = next_random(state);
        uint32_t code = s->entries ? random % s->entries : random >> (32u - s->bits);
        if (s->entries == 3u && s->bits == 2u) {
            static const uint8_t power[5] = {1, 3, 9, 27, 81};
            row[k / 5u] = (uint8_t)(row[k / 5u] + code * power[k % 5u]);
            continue;
        }
        if (s->bits == 32u)
            code = (uint32_t)((int32_t)code >> 2);
        for (uint32_t bit = 0; bit < s->bits; bit++) {
            const uint64_t at = k * s->bits + bit;
            row[at / 8u] |= (uint8_t)((code >> bit & 1u) << (at % 8u));
        }
    }
}

static void fill_input(const qxr_shape *s, uint8_t *input, size_t count, uint32_t *state)
{
    const int32_t base = s->lo < 0 ? s->lo : 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t span = (uint32_t)s->hi - (uint32_t)s->lo + 1u, random = next_random(state);
        const uint32_t pick = random % 4u; /* the ends are what overflows */
        const int32_t value = pick == 0 ? s->hi : pick == 1u ? s->lo : (int32_t)((uint32_t)s->lo + next_random(state) % span);
        if (s->storage == QXR_U8)
            input[i] = (uint8_t)(value - base);
        else if (s->storage == QXR_I16)
            ((int16_t *)(void *)input)[i] = (int16_t)value;
        else
            ((int32_t *)(void *)input)[i] = value;
    }
}

/* The range that every convolution of these shapes keeps. */
static void bound_result(const qxr_conv *conv, qxr_tensor *out)
{
    const uint64_t peak = (uint64_t)conv->input_peak + (uint32_t)-conv->base;
    const uint64_t bound = (uint64_t)conv->row * conv->weight_peak * peak;
    if (bound <= INT32_MAX) {
        out->lo = -(int32_t)bound;
        out->hi = (int32_t)bound;
    }
}

void qxr_make_conv_model(const qxr_shape *s, uint32_t seed, qxr_conv_model *made)
{
    const uint32_t tensors = 64, ops = tensors + 2u * 32u, constants = (ops + 48u + 15u) / 16u * 16u;
    const uint64_t length = (uint64_t)s->window * s->window * (s->channels / s->groups);
    const uint64_t row_bytes = s->entries == 3u && s->bits == 2u ? (length + 4u) / 5u : (length * s->bits + 7u) / 8u;
    const size_t inputs = (size_t)s->channels * s->height * s->width;
    uint32_t state = seed * 2654435761u + 1u;
    qxr_header *header;
    qxr_tensor *tensor;
    memset(made, 0, sizeof *made);
    made->bytes = take(constants + 4u * s->entries + (size_t)(row_bytes * s->outputs));
    header = (qxr_header *)(void *)made->bytes;
    tensor = (qxr_tensor *)(void *)(made->bytes + tensors);
    header->tensor_count = 2;
    header->op_count = 1;
    header->input_count = 1;
    header->tensors_offset = tensors;
    header->ops_offset = ops;
    fill_tensor(&tensor[0], s->storage, s->channels, s->height, s->width, s->lo, s->hi);
    fill_tensor(&tensor[1], QXR_VIRTUAL, s->outputs, out_extent(s, s->height), out_extent(s, s->width), INT32_MIN,
                INT32_MAX);
    fill_op(s, (qxr_op *)(void *)(made->bytes + ops), constants);
    fill_codebook(s, (int32_t *)(void *)(made->bytes + constants));
    for (uint32_t o = 0; o < s->outputs; o++)
        fill_row(s, made->bytes + constants + 4u * s->entries + o * row_bytes, length, &state);
    made->model.bytes = made->bytes;
    made->input = take(inputs * qxr_element_bytes(tensor) + INPUT_SLACK);
    fill_input(s, made->input, inputs, &state);
    qxr_describe_conv(&made->model, 0, &made->conv);
    bound_result(&made->conv, &tensor[1]);
    made->macs = (double)length * qxr_elements(&tensor[1]);
}

void qxr_free_conv_model(qxr_conv_model *made)
{
    free(made->bytes);
    free(made->input);
}
