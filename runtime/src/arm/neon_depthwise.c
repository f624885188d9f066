/* Depthwise convolution (one input and one output channel a group): 8 channels at a time. */
#include <arm_neon.h>
#include <string.h>

#include "arm/neon.h"
#include "vector/rows.h"

enum {
    CHANNELS = 8,
    MOST_TAPS = 64,
    TAP_BYTES = CHANNELS * 2 /* weights of a tap in 16 bits */
};

/* Rows are always copied: a vector may end behind the last channel. */
static const qxr_row_kernel byte_rows = {CHANNELS, 1, 1, CHANNELS, 0, NULL}, word_rows = {CHANNELS, 2, 1, CHANNELS, 0, NULL};

static const qxr_row_kernel *rows_of(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 ? &byte_rows : &word_rows;
}

static uint32_t taps(const qxr_conv *conv) { return (uint32_t)conv->op->window[0] * conv->op->window[1]; }
static size_t blocks(const qxr_conv *conv) { return (conv->out->extent[0] - 1u) / CHANNELS + 1u; }
static size_t block_bytes(const qxr_conv *conv) { return taps(conv) * TAP_BYTES + CHANNELS * sizeof(int32_t); }

static int suits(const qxr_conv *conv)
{
    const uint32_t limit = qxr_storage(conv->in) == QXR_U8 ? 255u : 32767u;
    return conv->group_in == 1u && conv->group_out == 1u && conv->op->groups > 1u && taps(conv) <= MOST_TAPS &&
           conv->input_peak <= limit && qxr_weight_planes(conv, &word_rows) == 1u &&
           qxr_rows_scratch(conv, rows_of(conv)) <= QXR_ROWS_LIMIT;
}

static size_t packed_size(const qxr_conv *conv) { return blocks(conv) * block_bytes(conv); }
static size_t scratch_size(const qxr_conv *conv) { return qxr_rows_scratch(conv, rows_of(conv)); }

/* A block: weights i16 [tap][8], then i32 sums[8]: base times the sum of the weights. */
static void pack(const qxr_conv *conv, uint8_t *packed)
{
    memset(packed, 0, packed_size(conv));
    for (uint32_t c = 0; c < conv->out->extent[0]; c++) {
        uint8_t *block = packed + c / CHANNELS * block_bytes(conv);
        int16_t *weights = (int16_t *)(void *)block + c % CHANNELS;
        int32_t *sum = (int32_t *)(void *)(block + taps(conv) * TAP_BYTES) + c % CHANNELS;
        int32_t values[MOST_TAPS];
        qxr_weight_values(&conv->weights, c, 0, taps(conv), values);
        for (uint32_t t = 0; t < taps(conv); t++) {
            weights[t * CHANNELS] = (int16_t)values[t];
            *sum = qxr_wrap_add(*sum, qxr_wrap_mul(values[t], conv->base)); /* the base of words is 0 */
        }
    }
}

/* Bytes from the window's first element to each tap. */
static void find_taps(const qxr_conv *conv, const qxr_window_rows *rows, size_t *offset)
{
    const uint32_t width = conv->op->window[1];
    for (uint32_t t = 0; t < taps(conv); t++)
        offset[t] = t / width * rows->pitch * conv->op->dilation[0] + t % width * rows->pixel * conv->op->dilation[1];
}

static inline int16x8_t load8(const uint8_t *at, uint32_t bytes)
{
    return bytes == 1u ? vreinterpretq_s16_u16(vmovl_u8(vld1_u8(at))) : vld1q_s16((const int16_t *)(const void *)at);
}

/* 8 channels of one pixel. */
static inline void multiply(const uint8_t *at, uint32_t bytes, const size_t *offset, uint32_t tap_count,
                            const uint8_t *block, int32_t *y)
{
    const int16_t *weights = (const int16_t *)(const void *)block;
    const int32_t *sums = (const int32_t *)(const void *)(block + (size_t)tap_count * TAP_BYTES);
    int32x4_t low = vld1q_s32(sums), high = vld1q_s32(sums + 4);
    for (uint32_t t = 0; t < tap_count; t++, weights += CHANNELS) {
        const int16x8_t x = load8(at + offset[t], bytes), w = vld1q_s16(weights);
        low = vmlal_s16(low, vget_low_s16(x), vget_low_s16(w));
        high = vmlal_high_s16(high, x, w);
    }
    vst1q_s32(y, low);
    vst1q_s32(y + 4, high);
}

/* The tile's lanes of one block, all pixels. `bytes` is a constant: a loop of its own for each width. */
static inline void multiply_block(const qxr_conv *conv, const qxr_window_rows *rows, const size_t *offset,
                                  const uint8_t *packed, uint32_t bytes, const qxr_tile *tile, uint32_t block, int32_t *y)
{
    const uint32_t start = block * CHANNELS, low = qxr_max(tile->channel, start);
    const uint32_t high = qxr_min(tile->channel + tile->channels, start + CHANNELS);
    const uint32_t tap_count = taps(conv);
    packed += block * block_bytes(conv);
    for (uint32_t p = 0; p < tile->pixels; p++) {
        const uint8_t *at = qxr_window_at(conv, rows, tile->pixel + p) + (size_t)start * bytes;
        int32_t *to = y + (size_t)p * tile->channels + (low - tile->channel);
        int32_t copy[CHANNELS];
        if (high - low == CHANNELS) {
            multiply(at, bytes, offset, tap_count, packed, to);
            continue;
        }
        multiply(at, bytes, offset, tap_count, packed, copy);
        for (uint32_t c = low; c < high; c++)
            to[c - low] = copy[c - start];
    }
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const qxr_row_kernel *kernel = rows_of(conv);
    for (uint32_t done = 0; done < tile->pixels;) {
        size_t offset[MOST_TAPS];
        qxr_tile part = *tile;
        qxr_window_rows rows;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_chunk_pixels(conv, kernel, part.pixel, tile->pixels - done);
        rows = qxr_gather_rows(conv, kernel, buffers, part.pixel, part.pixels);
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

const qxr_conv_kernel qxr_neon_depthwise = {"neon depthwise", suits, packed_size, pack, scratch_size, tile_of};
