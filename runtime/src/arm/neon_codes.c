/* Packed codes: input rows, windows, weights. */
#include "arm/neon_codes.h"

#include <string.h>

enum {
    COPY_BYTES = 16 << 10, /* packed input rows at a time: they stay in the nearest cache */
    VECTOR = 16,           /* windows are copied in vectors, the last of which may reach behind its end */
    SLACK = 64,
    RUN = 256              /* weights that are unpacked at once */
};

#define SCRATCH_LIMIT ((size_t)1 << 26)

static uint32_t pixel_bytes(const qxr_conv *conv, const qxr_code_kernel *kernel)
{
    return (conv->in->extent[0] - 1u) / kernel->per + 1u;
}

uint32_t qxr_code_steps(const qxr_conv *conv, const qxr_code_kernel *kernel)
{
    return (uint32_t)conv->op->window[0] * conv->op->window[1] * pixel_bytes(conv, kernel);
}

static size_t padded_width(const qxr_conv *conv)
{
    return (size_t)conv->in->extent[2] + conv->op->padding[2] + conv->op->padding[3];
}

static size_t input_rows(const qxr_conv *conv, size_t out_rows)
{
    return (out_rows - 1u) * conv->op->stride[0] + (size_t)(conv->op->window[0] - 1u) * conv->op->dilation[0] + 1u;
}

/* Output rows whose input rows are packed at a time. */
static uint32_t chunk_rows(const qxr_conv *conv, const qxr_code_kernel *kernel)
{
    const size_t room = COPY_BYTES / (padded_width(conv) * pixel_bytes(conv, kernel)), first = input_rows(conv, 1);
    const size_t rows = room > first ? (room - first) / conv->op->stride[0] + 1u : 1u;
    return rows < conv->out->extent[1] ? (uint32_t)rows : conv->out->extent[1];
}

static size_t window_bytes(const qxr_conv *conv, const qxr_code_kernel *kernel)
{
    return qxr_round_up(qxr_code_steps(conv, kernel), VECTOR) + VECTOR;
}

size_t qxr_codes_scratch(const qxr_conv *conv, const qxr_code_kernel *kernel)
{
    return QXR_CODE_PIXELS * window_bytes(conv, kernel) + SLACK +
           input_rows(conv, chunk_rows(conv, kernel)) * padded_width(conv) * pixel_bytes(conv, kernel);
}

/* Weights. */

static size_t blocks(const qxr_conv *conv) { return (conv->out->extent[0] - 1u) / QXR_CODE_CHANNELS + 1u; }

static size_t block_bytes(const qxr_conv *conv, const qxr_code_kernel *kernel)
{
    return (size_t)qxr_code_steps(conv, kernel) * QXR_CODE_CHANNELS;
}

size_t qxr_codes_packed_size(const qxr_conv *conv, const qxr_code_kernel *kernel)
{
    return kernel->head_bytes + blocks(conv) * (block_bytes(conv, kernel) + QXR_CODE_CHANNELS * sizeof(int32_t));
}

uint8_t *qxr_code_weights(const qxr_conv *conv, const qxr_code_kernel *kernel, uint8_t *packed, uint32_t channel)
{
    return packed + kernel->head_bytes + channel / QXR_CODE_CHANNELS * block_bytes(conv, kernel) +
           channel % QXR_CODE_CHANNELS;
}

int32_t *qxr_code_init(const qxr_conv *conv, const qxr_code_kernel *kernel, uint8_t *packed, uint32_t channel)
{
    uint8_t *init = packed + kernel->head_bytes + blocks(conv) * block_bytes(conv, kernel);
    return (int32_t *)(void *)init + channel;
}

void qxr_codes_pack(const qxr_conv *conv, const qxr_code_kernel *kernel, uint32_t weight_bits, uint8_t *packed)
{
    const uint32_t channels = conv->in->extent[0], bytes = pixel_bytes(conv, kernel);
    memset(packed, 0, qxr_codes_packed_size(conv, kernel));
    for (uint32_t o = 0; o < conv->out->extent[0]; o++) {
        uint8_t *to = qxr_code_weights(conv, kernel, packed, o);
        int32_t *init = qxr_code_init(conv, kernel, packed, o), codes[RUN];
        for (uint32_t first = 0; first < conv->row; first += RUN) {
            const uint32_t count = qxr_min(RUN, conv->row - first);
            qxr_weight_codes(&conv->weights, o, first, count, codes);
            for (uint32_t i = 0; i < count; i++) {
                const uint32_t tap = (first + i) / channels, c = (first + i) % channels;
                uint8_t *at = to + ((size_t)tap * bytes + c / kernel->per) * QXR_CODE_CHANNELS;
                *at = (uint8_t)(*at | (uint32_t)codes[i] << c % kernel->per * weight_bits);
                *init = qxr_wrap_add(*init, qxr_wrap_mul(conv->weights.codebook[codes[i]], conv->base));
            }
        }
    }
}

int qxr_codes_suit(const qxr_conv *conv, const qxr_code_kernel *kernel)
{
    const uint64_t steps = (uint64_t)conv->op->window[0] * conv->op->window[1] * pixel_bytes(conv, kernel);
    return conv->op->groups == 1u && steps < SCRATCH_LIMIT / 8u && qxr_codes_scratch(conv, kernel) <= SCRATCH_LIMIT &&
           steps * QXR_CODE_CHANNELS * blocks(conv) < QXR_NONE32 / 2u;
}

/* Input rows. */

static uint8_t pack_few(const qxr_code_kernel *kernel, const uint8_t *from, uint32_t count)
{
    uint32_t byte = 0;
    for (uint32_t i = 0; i < count; i++)
        byte |= (uint32_t)from[i] << i * kernel->bits;
    return (uint8_t)byte;
}

/* Where each of 16 codes belongs within its byte. */
static inline int8x16_t places(const qxr_code_kernel *kernel)
{
    static const int8_t numbers[VECTOR] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int8x16_t within = vandq_s8(vld1q_s8(numbers), vdupq_n_s8((int8_t)(kernel->per - 1u)));
    return vmulq_s8(within, vdupq_n_s8((int8_t)kernel->bits));
}

/* 16 codes to 2, 4 or 8 bytes: once in place, neighbours are added until a byte has its codes. */
static inline uint8_t *pack_vector(const qxr_code_kernel *kernel, uint8x16_t codes, int8x16_t shifts, uint8_t *to)
{
    codes = vshlq_u8(codes, shifts);
    codes = vpaddq_u8(codes, codes);
    if (kernel->per == 2u) {
        vst1_u8(to, vget_low_u8(codes));
        return to + 8;
    }
    codes = vpaddq_u8(codes, codes);
    if (kernel->per == 4u) {
        const uint32_t four = vgetq_lane_u32(vreinterpretq_u32_u8(codes), 0);
        __builtin_memcpy(to, &four, sizeof four);
        return to + 4;
    }
    codes = vpaddq_u8(codes, codes);
    const uint16_t two = vgetq_lane_u16(vreinterpretq_u16_u8(codes), 0);
    __builtin_memcpy(to, &two, sizeof two);
    return to + 2;
}

/* Some codes without gaps; the last byte may be filled in part. */
static void pack_run(const qxr_code_kernel *kernel, const uint8_t *from, size_t count, uint8_t *to)
{
    const int8x16_t shifts = places(kernel);
    size_t i = 0;
    for (; i + VECTOR <= count; i += VECTOR)
        to = pack_vector(kernel, vld1q_u8(from + i), shifts, to);
    for (; i < count; i += kernel->per)
        *to++ = pack_few(kernel, from + i, count - i < kernel->per ? (uint32_t)(count - i) : kernel->per);
}

/* Real zero, the code -base, in every channel. */
static void fill_padding(const qxr_conv *conv, const qxr_code_kernel *kernel, uint8_t *to, size_t pixels)
{
    const uint32_t channels = conv->in->extent[0], bytes = pixel_bytes(conv, kernel);
    uint8_t zero[8];
    memset(zero, -conv->base, sizeof zero);
    memset(to, pack_few(kernel, zero, kernel->per), pixels * bytes);
    if (channels % kernel->per)
        for (size_t i = bytes - 1u; i < pixels * bytes; i += bytes)
            to[i] = pack_few(kernel, zero, channels % kernel->per);
}

static void pack_row(const qxr_conv *conv, const qxr_code_kernel *kernel, const uint8_t *input, uint32_t row, uint8_t *to)
{
    const size_t channels = conv->in->extent[0], width = conv->in->extent[2], bytes = pixel_bytes(conv, kernel);
    const uint8_t *from = input + (size_t)row * width * channels;
    if (row >= conv->in->extent[1]) {
        fill_padding(conv, kernel, to, padded_width(conv));
        return;
    }
    fill_padding(conv, kernel, to, conv->op->padding[2]);
    to += conv->op->padding[2] * bytes;
    if (channels % kernel->per == 0u)
        pack_run(kernel, from, width * channels, to);
    else
        for (size_t x = 0; x < width; x++)
            pack_run(kernel, from + x * channels, channels, to + x * bytes);
    fill_padding(conv, kernel, to + width * bytes, conv->op->padding[3]);
}

/* Windows. */

typedef struct rows {
    const uint8_t *data; /* row of the first output row, column -left padding */
    size_t pitch, pixel; /* bytes */
    uint32_t first_out_row;
} rows;

static void copy_window(const qxr_conv *conv, const rows *from, uint32_t pixel, uint8_t *to)
{
    const qxr_op *op = conv->op;
    const uint32_t width = conv->out->extent[2], y = pixel / width - from->first_out_row, x = pixel % width;
    const int joined = op->dilation[1] == 1u;
    const size_t length = from->pixel * (joined ? op->window[1] : 1u);
    const uint32_t segments = joined ? 1u : op->window[1];
    const uint8_t *first = from->data + (size_t)y * op->stride[0] * from->pitch + x * op->stride[1] * from->pixel;
    for (uint32_t v = 0; v < op->window[0]; v++, first += op->dilation[0] * from->pitch)
        for (uint32_t h = 0; h < segments; h++, to += length)
            for (size_t i = 0; i < length; i += VECTOR)
                vst1q_u8(to + i, vld1q_u8(first + h * op->dilation[1] * from->pixel + i));
}

/* The windows of up to four pixels with one block of channels. A tile that ends within them goes through a copy. */
static void multiply(const qxr_code_kernel *kernel, qxr_code_product *p, uint32_t pixels, uint32_t lane, uint32_t lanes,
                     int32_t *y, size_t stride)
{
    int32_t copy[QXR_CODE_PIXELS * QXR_CODE_CHANNELS];
    const int whole = pixels == QXR_CODE_PIXELS && lanes == QXR_CODE_CHANNELS;
    p->pixels = pixels;
    p->out = whole ? y : copy;
    p->out_stride = whole ? stride : QXR_CODE_CHANNELS;
    kernel->product(p);
    for (uint32_t q = 0; q < pixels && !whole; q++)
        for (uint32_t c = 0; c < lanes; c++)
            y[q * stride + c] = copy[q * QXR_CODE_CHANNELS + lane + c];
}

/* Pixels of the tile whose input rows are packed. */
static void multiply_pixels(const qxr_conv *conv, const qxr_code_kernel *kernel, const qxr_conv_buffers *buffers,
                            const rows *from, const qxr_tile *tile, int32_t *y)
{
    uint8_t *packed = (uint8_t *)(uintptr_t)buffers->packed;
    const uint32_t end = tile->channel + tile->channels;
    const size_t window = window_bytes(conv, kernel);
    qxr_code_product p;
    p.steps = qxr_code_steps(conv, kernel);
    p.head = packed;
    for (uint32_t q = 0; q < tile->pixels; q += QXR_CODE_PIXELS) {
        const uint32_t pixels = qxr_min(QXR_CODE_PIXELS, tile->pixels - q);
        for (uint32_t i = 0; i < QXR_CODE_PIXELS; i++) {
            p.window[i] = buffers->scratch + (i < pixels ? i : 0u) * window;
            if (i < pixels)
                copy_window(conv, from, tile->pixel + q + i, buffers->scratch + i * window);
        }
        for (uint32_t c = tile->channel; c < end; c += QXR_CODE_CHANNELS - c % QXR_CODE_CHANNELS) {
            const uint32_t lane = c % QXR_CODE_CHANNELS;
            p.weights = qxr_code_weights(conv, kernel, packed, c - lane);
            p.init = qxr_code_init(conv, kernel, packed, c - lane);
            multiply(kernel, &p, pixels, lane, qxr_min(QXR_CODE_CHANNELS - lane, end - c),
                     y + (size_t)q * tile->channels + (c - tile->channel), tile->channels);
        }
    }
}

void qxr_codes_tile(const qxr_conv *conv, const qxr_code_kernel *kernel, const qxr_conv_buffers *buffers,
                    const qxr_tile *tile, int32_t *y)
{
    const uint32_t width = conv->out->extent[2];
    uint8_t *copy = buffers->scratch + QXR_CODE_PIXELS * window_bytes(conv, kernel);
    rows from;
    from.data = copy;
    from.pixel = pixel_bytes(conv, kernel);
    from.pitch = padded_width(conv) * from.pixel;
    for (uint32_t done = 0; done < tile->pixels;) {
        const uint32_t first = (tile->pixel + done) / width;
        qxr_tile part = *tile;
        size_t count;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_min(tile->pixels - done, (first + chunk_rows(conv, kernel)) * width - part.pixel);
        count = input_rows(conv, (part.pixel + part.pixels - 1u) / width - first + 1u);
        from.first_out_row = first;
        for (uint32_t i = 0; i < count; i++)
            pack_row(conv, kernel, buffers->input, first * conv->op->stride[0] + i - conv->op->padding[0],
                     copy + i * from.pitch);
        multiply_pixels(conv, kernel, buffers, &from, &part, y + (size_t)done * tile->channels);
        done += part.pixels;
    }
}
