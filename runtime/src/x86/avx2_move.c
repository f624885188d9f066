/* Operators that only move values, for sixteen channels of 16 bits at a time. */
#include "x86/avx2_words.h"

static inline void copy_words(const int16_t *from, int16_t *to)
{
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_loadu_si256((const __m256i *)(const void *)from));
}

enum { FEW = 8 /* channels */ };

/* Eight channels of one pixel, or zeros. */
static inline void pad_words(const int16_t *from, uint32_t channel, uint32_t channels, int16_t *to)
{
    __m128i some = _mm_setzero_si128();
    if (from && channel < channels)
        some = _mm_loadu_si128((const __m128i *)(const void *)(from + channel));
    _mm_storeu_si128((__m128i *)(void *)to, some);
}

static void pad(const uint32_t *before, const qxr_tensor *in, const int16_t *data, const qxr_tensor *out,
                const qxr_tile *tile, qxr_words y)
{
    const uint32_t width = out->extent[2], channels = in->extent[0];
    uint32_t row = tile->pixel / width - before[1], column = tile->pixel % width - before[2];
    for (uint32_t p = 0; p < tile->pixels; p++, y.at += y.pitch) {
        const size_t pixel = (size_t)row * in->extent[2] + column;
        const int16_t *from = row < in->extent[1] && column < in->extent[2] ? data + pixel * channels : NULL;
        for (uint32_t c = 0; c < tile->channels; c += FEW)
            pad_words(from, tile->channel + c - before[0], channels, y.at + c);
        if (++column == width - before[2]) {
            column = 0u - before[2];
            row++;
        }
    }
}

static void slice(const uint32_t *start, const qxr_tensor *in, const int16_t *data, const qxr_tensor *out,
                  const qxr_tile *tile, qxr_words y)
{
    const uint32_t *step = start + 3, width = out->extent[2];
    uint32_t row = tile->pixel / width, column = tile->pixel % width;
    for (uint32_t p = 0; p < tile->pixels; p++, y.at += y.pitch) {
        const size_t pixel = (size_t)(start[1] + row * step[1]) * in->extent[2] + start[2] + column * step[2];
        for (uint32_t c = 0; c < tile->channels; c += WORDS)
            copy_words(data + pixel * in->extent[0] + start[0] + tile->channel + c, y.at + c);
        if (++column == width) {
            column = 0;
            row++;
        }
    }
}

int qxr_move_words(const qxr_chain *chain, const qxr_tile *tile, qxr_words y)
{
    const qxr_op *op = qxr_get_op(chain->model, chain->group);
    const qxr_tensor *out = qxr_get_tensor(chain->model, qxr_get_header(chain->model)->input_count + chain->group);
    const uint32_t *constants = (const uint32_t *)(const void *)(chain->model->bytes + op->constant_offset);
    const qxr_tensor *in;
    const int16_t *data;
    if (op->opcode != QXR_PAD && op->opcode != QXR_SLICE)
        return 0;
    in = qxr_get_tensor(chain->model, op->input[0]);
    data = (const int16_t *)(const void *)(chain->arena + in->arena_offset);
    if (qxr_storage(in) != QXR_I16)
        return 0;
    if (op->opcode == QXR_PAD) {
        if (in->extent[0] % FEW || constants[0] % FEW)
            return 0;
        pad(constants, in, data, out, tile, y);
    } else {
        if (constants[3] != 1u)
            return 0;
        slice(constants, in, data, out, tile, y);
    }
    return 1;
}
