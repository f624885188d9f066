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

/* Each digit from quotients that do not wait for each other. */
static void five_digits(uint32_t byte, int32_t codes[5])
{
    const uint32_t by_3 = byte / 3u, by_9 = byte / 9u, by_27 = byte / 27u, by_81 = byte / 81u;
    codes[0] = (int32_t)(byte - 3u * by_3);
    codes[1] = (int32_t)(by_3 - 3u * by_9);
    codes[2] = (int32_t)(by_9 - 3u * by_27);
    codes[3] = (int32_t)(by_27 - 3u * by_81);
    codes[4] = (int32_t)(by_81 % 3u);
}

static void base3_codes(const uint8_t *row, uint64_t first, uint32_t count, int32_t *codes)
{
    const uint8_t *next = row + first / 5u;
    uint32_t skip = (uint32_t)(first % 5u), done = 0;
    while (done < count) {
        if (skip == 0 && count - done >= 5u) {
            five_digits(*next++, codes + done);
            done += 5u;
            continue;
        }
        int32_t digits[5];
        five_digits(*next++, digits);
        while (skip < 5u && done < count)
            codes[done++] = digits[skip++];
        skip = 0;
    }
}

/* Codes that fill whole bytes, `bits` of them 1, 2 or 4: a constant where this is inlined. */
static inline void unpack_bytes(const uint8_t *next, uint32_t bits, uint32_t bytes, int32_t *codes)
{
    const uint32_t each = 8u / bits, mask = (1u << bits) - 1u;
    for (uint32_t i = 0; i < bytes; i++)
        for (uint32_t j = 0; j < each; j++)
            codes[i * each + j] = (int32_t)(next[i] >> (j * bits) & mask);
}

/* As many codes of a codebook as whole bytes hold, from a byte on; returns how many. */
static uint32_t byte_codes(const uint8_t *next, uint32_t bits, uint32_t count, int32_t *codes)
{
    const uint32_t bytes = (uint32_t)((uint64_t)count * bits / 8u);
    switch (bits) {
    case 1:
        unpack_bytes(next, 1, bytes, codes);
        break;
    case 2:
        unpack_bytes(next, 2, bytes, codes);
        break;
    case 4:
        unpack_bytes(next, 4, bytes, codes);
        break;
    default:
        return 0;
    }
    return bytes * 8u / bits;
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
    uint32_t done = 0;
    if (w->base3) {
        base3_codes(bytes, first, count, codes);
        return;
    }
    if (w->codebook != NULL && first * w->bits % 8u == 0)
        done = byte_codes(bytes + first * w->bits / 8u, w->bits, count, codes);
    if (done < count)
        packed_codes(bytes, w->bits, first + done, count - done, w->codebook == NULL, codes + done);
}

void qxr_weight_values(const qxr_weights *w, uint32_t row, uint64_t first, uint32_t count, int32_t *values)
{
    qxr_weight_codes(w, row, first, count, values);
    if (w->codebook != NULL)
        for (uint32_t i = 0; i < count; i++)
            values[i] = w->codebook[values[i]];
}
