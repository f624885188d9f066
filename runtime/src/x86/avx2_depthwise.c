/* Depthwise convolution (one input and one output channel a group) with AVX2: 16 channels at a time, two taps to a
 * multiplication. */
#include <immintrin.h>
#include <string.h>

#include "x86/avx2.h"

enum {
    CHANNELS = 16,
    MOST_TAPS = 64,
    PAIR_BYTES = CHANNELS * 2 * 2 /* weights of two taps in 16 bits */
};

/* Rows are always copied: a vector may end behind the last channel. */
static const qxr_row_kernel byte_rows = {CHANNELS, 1, 1, CHANNELS, NULL, 0, 0}, word_rows = {CHANNELS, 2, 1, CHANNELS, NULL, 0, 0};

static const qxr_row_kernel *rows_of(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 ? &byte_rows : &word_rows;
}

static uint32_t taps(const qxr_conv *conv) { return (uint32_t)conv->op->window[0] * conv->op->window[1]; }
static size_t pairs(const qxr_conv *conv) { return (taps(conv) + 1u) / 2u; }
static size_t blocks(const qxr_conv *conv) { return (conv->out->extent[0] - 1u) / CHANNELS + 1u; }
static size_t block_bytes(const qxr_conv *conv) { return pairs(conv) * PAIR_BYTES + CHANNELS * sizeof(int32_t); }

static int suits(const qxr_conv *conv)
{
    const uint32_t limit = qxr_storage(conv->in) == QXR_U8 ? 255u : 32767u;
    return conv->group_in == 1u && conv->group_out == 1u && conv->op->groups > 1u && taps(conv) <= MOST_TAPS &&
           conv->input_peak <= limit && qxr_weight_planes(conv, &word_rows) == 1u &&
           qxr_rows_scratch(conv, rows_of(conv)) <= QXR_ROWS_LIMIT;
}

static size_t packed_size(const qxr_conv *conv) { return blocks(conv) * block_bytes(conv); }
static size_t scratch_size(const qxr_conv *conv) { return qxr_rows_scratch(conv, rows_of(conv)); }

/* Where the weight of a channel stands in a pair: the interleaving instructions take channels 0-3 and 8-11 first. */
static size_t place(uint32_t channel, uint32_t tap)
{
    const uint32_t second = channel / 4u % 2u, half = channel / 8u;
    return (second * CHANNELS + half * 8u + channel % 4u * 2u) + tap % 2u;
}

/* A block: weights i16 [pair][2][16], then i32 sums[16]: base times the sum of the weights. */
static void pack(const qxr_conv *conv, uint8_t *packed)
{
    memset(packed, 0, packed_size(conv));
    for (uint32_t c = 0; c < conv->out->extent[0]; c++) {
        uint8_t *block = packed + c / CHANNELS * block_bytes(conv);
        int16_t *weights = (int16_t *)(void *)block;
        int32_t *sums = (int32_t *)(void *)(block + pairs(conv) * PAIR_BYTES);
        int32_t values[MOST_TAPS];
        qxr_weight_values(&conv->weights, c, 0, taps(conv), values);
        for (uint32_t t = 0; t < taps(conv); t++) {
            weights[t / 2u * (PAIR_BYTES / 2) + place(c % CHANNELS, t)] = (int16_t)values[t];
            sums[c % CHANNELS] = qxr_wrap_add(sums[c % CHANNELS], qxr_wrap_mul(values[t], conv->base));
        }
        if (rows_of(conv) == &word_rows)
            sums[c % CHANNELS] = 0;
    }
}

/* Bytes from the window's first element to each tap; one more for an odd number. */
static void find_taps(const qxr_conv *conv, const qxr_window_rows *rows, size_t *offset)
{
    const uint32_t width = conv->op->window[1];
    for (uint32_t t = 0; t < taps(conv); t++)
        offset[t] = t / width * rows->pitch * conv->op->dilation[0] + t % width * rows->pixel * conv->op->dilation[1];
    offset[taps(conv)] = offset[0];
}

static inline __m256i load16(const uint8_t *at, uint32_t bytes)
{
    if (bytes == 1u)
        return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)at));
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

/* 16 channels of one pixel. */
static inline void multiply(const uint8_t *at, uint32_t bytes, const size_t *offset, size_t pair_count,
                            const uint8_t *block, int32_t *y)
{
    const __m256i *w = (const __m256i *)(const void *)block, *sums = w + pair_count * 2u;
    __m256i low = _mm256_setzero_si256(), high = low;
    for (size_t i = 0; i < pair_count; i++) {
        const __m256i a = load16(at + offset[2u * i], bytes), b = load16(at + offset[2u * i + 1u], bytes);
        low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), w[2u * i]));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), w[2u * i + 1u]));
    }
    _mm256_storeu_si256((__m256i *)(void *)y, _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), sums[0]));
    _mm256_storeu_si256((__m256i *)(void *)(y + 8), _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x31), sums[1]));
}

/* The tile's lanes of one block, all pixels. `bytes` is a constant: a loop of its own for each width. */
static inline void multiply_block(const qxr_conv *conv, const qxr_window_rows *rows, const size_t *offset,
                                  const uint8_t *packed, uint32_t bytes, const qxr_tile *tile, uint32_t block, int32_t *y)
{
    const uint32_t start = block * CHANNELS, low = qxr_max(tile->channel, start);
    const uint32_t high = qxr_min(tile->channel + tile->channels, start + CHANNELS);
    const size_t pair_count = pairs(conv);
    for (uint32_t p = 0; p < tile->pixels; p++) {
        const uint8_t *at = qxr_window_at(conv, rows, tile->pixel + p) + (size_t)start * bytes;
        int32_t *to = y + (size_t)p * tile->channels + (low - tile->channel);
        int32_t copy[CHANNELS];
        if (high - low == CHANNELS) {
            multiply(at, bytes, offset, pair_count, packed + block * block_bytes(conv), to);
            continue;
        }
        multiply(at, bytes, offset, pair_count, packed + block * block_bytes(conv), copy);
        memcpy(to, copy + (low - start), (high - low) * sizeof *to);
    }
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const qxr_row_kernel *kernel = rows_of(conv);
    for (uint32_t done = 0; done < tile->pixels;) {
        size_t offset[MOST_TAPS + 1];
        qxr_tile part = *tile;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_chunk_pixels(conv, kernel, part.pixel, tile->pixels - done);
        const qxr_window_rows rows = qxr_gather_rows(conv, kernel, buffers, part.pixel, part.pixels);
        find_taps(conv, &rows, offset);
        for (uint32_t b = tile->channel / CHANNELS; b * CHANNELS < tile->channel + tile->channels; b++) {
            int32_t *to = y + (size_t)done * tile->channels;
            if (kernel->bytes == 1u)
                multiply_block(conv, &rows, offset, buffers->packed, 1u, &part, b, to);
            else
                multiply_block(conv, &rows, offset, buffers->packed, 2u, &part, b, to);
        }
        done += part.pixels;
    }
}

const qxr_conv_kernel qxr_avx2_depthwise = {"avx2 depthwise", suits, packed_size, pack, scratch_size, tile_of, NULL, 0};
