/* Depthwise convolution: weights, taps and blocks of channels. */
#include "vector/depthwise.h"

#include <string.h>

enum { CHANNELS = QXR_DEPTHWISE_CHANNELS, MOST_TAPS = 64, MOST_STEP_TAPS = 2 };

/* Rows are always copied: a vector may end behind the last channel. */
static const qxr_row_kernel byte_rows = {CHANNELS, 1, 1, CHANNELS, NULL, 0, 0};
static const qxr_row_kernel word_rows = {CHANNELS, 2, 1, CHANNELS, NULL, 0, 0};

static const qxr_row_kernel *rows_of(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 ? &byte_rows : &word_rows;
}

static uint32_t taps(const qxr_conv *conv) { return (uint32_t)conv->op->window[0] * conv->op->window[1]; }
static size_t blocks(const qxr_conv *conv) { return (conv->out->extent[0] - 1u) / CHANNELS + 1u; }

static uint32_t steps(const qxr_conv *conv, const qxr_depthwise_kernel *kernel)
{
    return (taps(conv) + kernel->taps - 1u) / kernel->taps;
}

/* A block: its weights i16, then i32 sums[8]. */
static size_t weight_bytes(const qxr_conv *conv, const qxr_depthwise_kernel *kernel)
{
    return (size_t)steps(conv, kernel) * kernel->taps * CHANNELS * sizeof(int16_t);
}

static size_t block_bytes(const qxr_conv *conv, const qxr_depthwise_kernel *kernel)
{
    return weight_bytes(conv, kernel) + CHANNELS * sizeof(int32_t);
}

int qxr_depthwise_suits(const qxr_conv *conv)
{
    const uint32_t limit = qxr_storage(conv->in) == QXR_U8 ? 255u : 32767u;
    return conv->group_in == 1u && conv->group_out == 1u && conv->op->groups > 1u && taps(conv) <= MOST_TAPS &&
           conv->input_peak <= limit && qxr_weight_planes(conv, &word_rows) == 1u &&
           qxr_rows_scratch(conv, rows_of(conv)) <= QXR_ROWS_LIMIT;
}

size_t qxr_depthwise_packed_size(const qxr_conv *conv, const qxr_depthwise_kernel *kernel)
{
    return blocks(conv) * block_bytes(conv, kernel);
}

size_t qxr_depthwise_scratch(const qxr_conv *conv) { return qxr_rows_scratch(conv, rows_of(conv)); }

void qxr_depthwise_pack(const qxr_conv *conv, const qxr_depthwise_kernel *kernel, uint8_t *packed)
{
    memset(packed, 0, qxr_depthwise_packed_size(conv, kernel));
    for (uint32_t c = 0; c < conv->out->extent[0]; c++) {
        uint8_t *block = packed + c / CHANNELS * block_bytes(conv, kernel);
        int16_t *weights = (int16_t *)(void *)block + c % CHANNELS * kernel->taps;
        int32_t *sum = (int32_t *)(void *)(block + weight_bytes(conv, kernel)) + c % CHANNELS;
        int32_t values[MOST_TAPS];
        qxr_weight_values(&conv->weights, c, 0, taps(conv), values);
        for (uint32_t t = 0; t < taps(conv); t++) {
            weights[t / kernel->taps * CHANNELS * kernel->taps + t % kernel->taps] = (int16_t)values[t];
            *sum = qxr_wrap_add(*sum, qxr_wrap_mul(values[t], conv->base)); /* the base of words is 0 */
        }
    }
}

/* Where each tap lies; for the last step some more, which are multiplied by 0. */
static void find_taps(const qxr_conv *conv, const qxr_window_rows *rows, size_t *offset)
{
    const uint32_t width = conv->op->window[1];
    for (uint32_t t = 0; t < taps(conv); t++)
        offset[t] = t / width * rows->pitch * conv->op->dilation[0] + t % width * rows->pixel * conv->op->dilation[1];
    for (uint32_t t = 0; t + 1u < MOST_STEP_TAPS; t++)
        offset[taps(conv) + t] = offset[0];
}

/* The channels [low, high) of a block, one pixel after the other through a copy. */
static void multiply_some(const qxr_depthwise_kernel *kernel, const qxr_depthwise_product *p, uint32_t low,
                          uint32_t high)
{
    qxr_depthwise_product one = *p;
    int32_t copy[CHANNELS], *y = p->out;
    one.pixels = 1;
    one.out = copy;
    for (uint32_t q = 0; q < p->pixels; q++, y += p->out_stride) {
        kernel->product(&one);
        qxr_next_window(&one.windows);
        for (uint32_t c = low; c < high; c++)
            y[c - low] = copy[c];
    }
}

/* The tile's channels of one block, all pixels. */
static void multiply_block(const qxr_conv *conv, const qxr_depthwise_kernel *kernel, const qxr_window_rows *rows,
                           const size_t *offset, const uint8_t *packed, const qxr_tile *tile, uint32_t block,
                           int32_t *y)
{
    const uint32_t start = block * CHANNELS, low = qxr_max(tile->channel, start);
    const uint32_t high = qxr_min(tile->channel + tile->channels, start + CHANNELS);
    const uint8_t *weights = packed + block * block_bytes(conv, kernel);
    qxr_depthwise_product p;
    p.windows = qxr_walk_windows(conv, rows, tile->pixel);
    p.bytes = rows_of(conv)->bytes;
    p.windows.at += (size_t)start * p.bytes;
    p.pixels = tile->pixels;
    p.steps = steps(conv, kernel);
    p.offset = offset;
    p.weights = (const int16_t *)(const void *)weights;
    p.sums = (const int32_t *)(const void *)(weights + weight_bytes(conv, kernel));
    p.out = y + (low - tile->channel);
    p.out_stride = tile->channels;
    if (high - low == CHANNELS)
        kernel->product(&p);
    else
        multiply_some(kernel, &p, low - start, high - start);
}

void qxr_depthwise_tile(const qxr_conv *conv, const qxr_depthwise_kernel *kernel, const qxr_conv_buffers *buffers,
                        const qxr_tile *tile, int32_t *y)
{
    for (uint32_t done = 0; done < tile->pixels;) {
        size_t offset[MOST_TAPS + MOST_STEP_TAPS - 1];
        qxr_tile part = *tile;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_chunk_pixels(conv, rows_of(conv), part.pixel, tile->pixels - done);
        const qxr_window_rows rows = qxr_gather_rows(conv, rows_of(conv), buffers, part.pixel, part.pixels);
        find_taps(conv, &rows, offset);
        for (uint32_t b = tile->channel / CHANNELS; b * CHANNELS < tile->channel + tile->channels; b++)
            multiply_block(conv, kernel, &rows, offset, buffers->packed, &part, b, y + (size_t)done * tile->channels);
        done += part.pixels;
    }
}
