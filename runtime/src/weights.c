#include "weights.h"

qxr_weights qxr_weights_of(const qxr_model *model, uint32_t index)
{
    const qxr_op *op = qxr_get_op(model, index);
    const qxr_tensor *in = qxr_get_tensor(model, op->input[0]);
    const qxr_tensor *out = qxr_get_tensor(model, qxr_get_header(model)->input_count + index);
    const uint8_t *constants = model->bytes + op->constant_offset;
    qxr_weights w;
    w.entries = op->count;
    w.codebook = op->count ? (const int32_t *)(const void *)constants : NULL;
    w.rows = constants + 4u * (size_t)op->count;
    w.length = (uint64_t)op->window[0] * op->window[1] * (in->extent[0] / op->groups);
    w.row_count = out->extent[0];
    w.bits = op->parameter;
    w.base3 = (op->flags & QXR_CONV_BASE3) != 0;
    w.row_bytes = w.base3 ? (w.length + 4u) / 5u : (w.length * w.bits + 7u) / 8u;
    return w;
}

static void base3_codes(const uint8_t *row, uint64_t first, uint32_t count, int32_t *codes)
{
    const uint8_t *next = row + first / 5u;
    uint32_t left = 5u - (uint32_t)(first % 5u);
    uint32_t byte = *next++;
    for (uint32_t skip = left; skip < 5u; skip++)
        byte /= 3u;
    for (uint32_t i = 0; i < count; i++) {
        if (left == 0) {
            byte = *next++;
            left = 5u;
        }
        codes[i] = (int32_t)(byte % 3u);
        byte /= 3u;
        left--;
    }
}

static void packed_codes(const uint8_t *row, uint32_t bits, uint64_t first, uint32_t count, int is_signed,
                         int32_t *codes)
{
    const uint64_t start = first * bits;
    const uint8_t *next = row + start / 8u;
    const uint32_t skip = (uint32_t)(start % 8u);
    const uint32_t mask = 0xFFFFFFFFu >> (32u - bits);
    const uint32_t sign = is_signed ? 1u << (bits - 1u) : 0u;
    uint64_t window = (uint64_t)*next++ >> skip;
    uint32_t held = 8u - skip;
    for (uint32_t i = 0; i < count; i++) {
        while (held < bits) { /* a byte is read only for bits of this weight, so never one behind the row */
            window |= (uint64_t)*next++ << held;
            held += 8u;
        }
        codes[i] = (int32_t)((((uint32_t)window & mask) ^ sign) - sign);
        window >>= bits;
        held -= bits;
    }
}

void qxr_weight_codes(const qxr_weights *w, uint32_t row, uint64_t first, uint32_t count, int32_t *codes)
{
    const uint8_t *bytes = w->rows + (size_t)(row * w->row_bytes);
    if (count == 0)
        return;
    if (w->base3)
        base3_codes(bytes, first, count, codes);
    else
        packed_codes(bytes, w->bits, first, count, w->codebook == NULL, codes);
}

void qxr_weight_values(const qxr_weights *w, uint32_t row, uint64_t first, uint32_t count, int32_t *values)
{
    qxr_weight_codes(w, row, first, count, values);
    if (w->codebook != NULL)
        for (uint32_t i = 0; i < count; i++)
            values[i] = w->codebook[values[i]];
}
