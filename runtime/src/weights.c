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

enum { DIGITS = 5, BYTES = 64 /* of digits at a time */ };

/* digits[j][i]: digit j of byte i. Products and shifts in 16 bits give the quotients of every byte; compilers make
 * vectors of them. */
static void read_digits(const uint8_t *bytes, uint32_t count, uint8_t digits[DIGITS][BYTES])
{
    for (uint32_t i = 0; i < count; i++) {
        const uint16_t byte = bytes[i], by_3 = (uint16_t)(byte * 171u) >> 9, by_9 = (uint16_t)(byte * 57u) >> 9;
        const uint16_t by_27 = (uint16_t)(byte * 19u) >> 9, by_81 = (uint16_t)(byte * 203u) >> 14;
        digits[0][i] = (uint8_t)(byte - 3u * by_3);
        digits[1][i] = (uint8_t)(by_3 - 3u * by_9);
        digits[2][i] = (uint8_t)(by_9 - 3u * by_27);
        digits[3][i] = (uint8_t)(by_27 - 3u * by_81);
        digits[4][i] = by_81 < 3u ? (uint8_t)by_81 : 0u;
    }
}

static void base3_codes(const uint8_t *row, uint64_t first, uint32_t count, int32_t *codes)
{
    const uint8_t *next = row + first / DIGITS;
    uint32_t digit = (uint32_t)(first % DIGITS), done = 0;
    while (done < count) {
        const uint32_t needed = (digit + count - done - 1u) / DIGITS + 1u, bytes = needed < BYTES ? needed : BYTES;
        uint8_t digits[DIGITS][BYTES];
        read_digits(next, bytes, digits);
        next += bytes;
        for (uint32_t i = 0; i < bytes; i++, digit = 0) {
            if (digit == 0u && count - done >= DIGITS) {
                for (uint32_t j = 0; j < DIGITS; j++)
                    codes[done++] = digits[j][i];
                continue;
            }
            while (digit < DIGITS && done < count)
                codes[done++] = digits[digit++][i];
        }
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
