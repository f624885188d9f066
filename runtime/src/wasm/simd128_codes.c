/* Packed codes: input rows, windows, weights. */
#include "wasm/simd128_codes.h"

#include <string.h>

enum {
    COPY_BYTES = 16 << 10, /* packed input rows at a time: they stay in the nearest cache */
    VECTOR = 16,
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

size_t qxr_codes_scratch(const qxr_conv *conv, const qxr_code_kernel *kernel)
{
    return input_rows(conv, chunk_rows(conv, kernel)) * padded_width(conv) * pixel_bytes(conv, kernel) + VECTOR;
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

/* 16 codes to 2, 4 or 8 bytes. Lanes of 8, 4 or 2 codes each: a code moves down by what stands between it and its
 * place. */
static inline uint8_t *pack_vector(const qxr_code_kernel *kernel, v128_t codes, uint8_t *to)
{
    const uint32_t gap = 8u - kernel->bits;
    if (kernel->per == 8u) {
        const uint16_t bits = (uint16_t)wasm_i8x16_bitmask(wasm_i8x16_gt(codes, wasm_i8x16_splat(0)));
        __builtin_memcpy(to, &bits, sizeof bits);
        return to + 2;
    }
    if (kernel->per == 4u) {
        codes = wasm_v128_or(codes, wasm_u32x4_shr(codes, gap));
        codes = wasm_v128_or(codes, wasm_u32x4_shr(codes, 2u * gap));
        codes = wasm_i8x16_shuffle(codes, codes, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
        wasm_v128_store32_lane(to, codes, 0);
        return to + 4;
    }
    codes = wasm_v128_and(wasm_v128_or(codes, wasm_u16x8_shr(codes, gap)), wasm_i16x8_splat(0xFF));
    wasm_v128_store64_lane(to, wasm_u8x16_narrow_i16x8(codes, codes), 0);
    return to + 8;
}

/* Some codes without gaps; the last byte may be filled in part. */
static void pack_run(const qxr_code_kernel *kernel, const uint8_t *from, size_t count, uint8_t *to)
{
    size_t i = 0;
    for (; i + VECTOR <= count; i += VECTOR)
        to = pack_vector(kernel, wasm_v128_load(from + i), to);
    for (; i < count; i += kernel->per)
        *to++ = pack_few(kernel, from + i, count - i < kernel->per ? (uint32_t)(count - i) : kernel->per);
}

/* Real zero, the code -base, in every channel. Up to 15 bytes behind are written, too, where the row or the next one
 * follows. */
static void fill_padding(const qxr_conv *conv, const qxr_code_kernel *kernel, uint8_t *to, size_t pixels)
{
    const uint32_t bytes = pixel_bytes(conv, kernel), left = conv->in->extent[0] - (bytes - 1u) * kernel->per;
    uint8_t zero[VECTOR]; /* as many codes as a byte can hold */
    wasm_v128_store(zero, wasm_i8x16_splat((int8_t)-conv->base));
    for (size_t i = 0; i < pixels * bytes; i += VECTOR)
        wasm_v128_store(to + i, wasm_i8x16_splat((int8_t)pack_few(kernel, zero, kernel->per)));
    if (left < kernel->per)
        for (size_t i = 1; i <= pixels; i++)
            to[i * bytes - 1u] = pack_few(kernel, zero, left);
}

static void pack_row(const qxr_conv *conv, const qxr_code_kernel *kernel, const uint8_t *input, uint32_t row,
                     uint8_t *to)
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

/* Where the window of the next pixel lies: divisions once, not for each. */
typedef struct walk {
    const uint8_t *at;
    size_t step, row_step; /* to the next pixel of the row; from the last of a row to the first of the next */
    uint32_t column, width;
} walk;

static walk start_walk(const qxr_conv *conv, const rows *from, uint32_t pixel)
{
    const qxr_op *op = conv->op;
    walk w;
    w.width = conv->out->extent[2];
    w.column = pixel % w.width;
    w.step = op->stride[1] * from->pixel;
    w.at = from->data + (pixel / w.width - from->first_out_row) * op->stride[0] * from->pitch + w.column * w.step;
    w.row_step = op->stride[0] * from->pitch - (w.width - 1u) * w.step;
    return w;
}

static const uint8_t *next_window(walk *w)
{
    const uint8_t *at = w->at;
    if (++w->column == w->width) {
        w->column = 0;
        w->at += w->row_step;
    } else {
        w->at += w->step;
    }
    return at;
}

static void find_segments(const qxr_conv *conv, const rows *from, qxr_code_product *p)
{
    const qxr_op *op = conv->op;
    const int joined = op->dilation[1] == 1u;
    p->outer = op->window[0];
    p->inner = joined ? 1u : op->window[1];
    p->length = (uint32_t)from->pixel * (joined ? op->window[1] : 1u);
    p->outer_step = op->dilation[0] * from->pitch;
    p->inner_step = op->dilation[1] * from->pixel;
}

/* The windows of up to four pixels with one block of channels. A tile that ends within them goes through a copy. */
static void multiply(const qxr_code_kernel *kernel, qxr_code_product *p, uint32_t pixels, uint32_t lane, uint32_t lanes,
                     int32_t *y, size_t stride)
{
    int32_t copy[QXR_CODE_PIXELS * QXR_CODE_CHANNELS];
    const int whole = pixels == QXR_CODE_PIXELS && lanes == QXR_CODE_CHANNELS;
    p->out = whole ? y : copy;
    p->out_stride = whole ? stride : QXR_CODE_CHANNELS;
    kernel->product(p);
    for (uint32_t q = 0; q < pixels && !whole; q++)
        for (uint32_t c = 0; c < lanes; c++)
            y[q * stride + c] = copy[q * QXR_CODE_CHANNELS + lane + c];
}

/* Pixels of the tile whose input rows are packed. */
static void multiply_pixels(const qxr_conv *conv, const qxr_code_kernel *kernel, uint8_t *packed, const rows *from,
                            const qxr_tile *tile, int32_t *y)
{
    const uint32_t end = tile->channel + tile->channels;
    const int32_t *init = qxr_code_init(conv, kernel, packed, 0);
    walk w = start_walk(conv, from, tile->pixel);
    const size_t weights = block_bytes(conv, kernel);
    qxr_code_product p;
    p.head = packed;
    find_segments(conv, from, &p);
    for (uint32_t q = 0; q < tile->pixels; q += QXR_CODE_PIXELS) {
        const uint32_t pixels = qxr_min(QXR_CODE_PIXELS, tile->pixels - q);
        for (uint32_t i = 0; i < pixels; i++)
            p.window[i] = next_window(&w);
        for (uint32_t i = pixels; i < QXR_CODE_PIXELS; i++)
            p.window[i] = p.window[0];
        for (uint32_t c = tile->channel; c < end; c += QXR_CODE_CHANNELS - c % QXR_CODE_CHANNELS) {
            const uint32_t lane = c % QXR_CODE_CHANNELS;
            p.weights = packed + kernel->head_bytes + c / QXR_CODE_CHANNELS * weights;
            p.init = init + (c - lane);
            multiply(kernel, &p, pixels, lane, qxr_min(QXR_CODE_CHANNELS - lane, end - c),
                     y + (size_t)q * tile->channels + (c - tile->channel), tile->channels);
        }
    }
}

void qxr_codes_tile(const qxr_conv *conv, const qxr_code_kernel *kernel, const qxr_conv_buffers *buffers,
                    const qxr_tile *tile, int32_t *y)
{
    const uint32_t width = conv->out->extent[2];
    uint8_t *packed = (uint8_t *)(uintptr_t)buffers->packed; /* only read; packing finds places alike */
    rows from;
    from.data = buffers->scratch;
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
                     buffers->scratch + i * from.pitch);
        multiply_pixels(conv, kernel, packed, &from, &part, y + (size_t)done * tile->channels);
        done += part.pixels;
    }
}
