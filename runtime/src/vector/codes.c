/* Packed codes: input rows, windows, weights. */
#include "vector/codes.h"

#include <string.h>

#include "vector/rows.h"

enum {
    COPY_BYTES = 16 << 10, /* packed input rows at a time: they stay in the nearest cache */
    FILLED = 8,            /* bytes of padding that are written at once */
    RUN = 256              /* weights that are unpacked at once */
};

#define SCRATCH_LIMIT ((size_t)1 << 26)

static uint32_t pixel_bytes(const qxr_conv *conv, const qxr_code_form *form)
{
    return (conv->in->extent[0] - 1u) / form->per + 1u;
}

static size_t row_bytes(const qxr_conv *conv, const qxr_code_form *form)
{
    return qxr_padded_width(conv) * pixel_bytes(conv, form);
}

/* Output rows whose input rows are packed at a time. */
static uint32_t chunk_rows(const qxr_conv *conv, const qxr_code_form *form)
{
    return qxr_rows_that_fit(conv, COPY_BYTES, row_bytes(conv, form));
}

size_t qxr_codes_scratch(const qxr_conv *conv, const qxr_code_form *form)
{
    return qxr_input_rows(conv, chunk_rows(conv, form)) * row_bytes(conv, form) + FILLED;
}

static int is_joined(const qxr_conv *conv) { return conv->op->dilation[1] == 1u; }

/* Bytes of a segment: taps of a row that are neighbours, or one tap. */
static uint32_t segment_bytes(const qxr_conv *conv, const qxr_code_form *form)
{
    return pixel_bytes(conv, form) * (is_joined(conv) ? conv->op->window[1] : 1u);
}

uint32_t qxr_code_steps(const qxr_conv *conv, const qxr_code_form *form)
{
    return (uint32_t)conv->op->window[0] * conv->op->window[1] * pixel_bytes(conv, form);
}

/* Weights. */

static size_t blocks(const qxr_conv *conv) { return (conv->out->extent[0] - 1u) / QXR_CODE_CHANNELS + 1u; }

static size_t block_bytes(const qxr_conv *conv, const qxr_code_form *form)
{
    const uint32_t length = segment_bytes(conv, form), segments = qxr_code_steps(conv, form) / length;
    return segments * qxr_round_up(length, form->unit) * QXR_CODE_CHANNELS;
}

size_t qxr_codes_packed_size(const qxr_conv *conv, const qxr_code_form *form)
{
    return form->head_bytes + blocks(conv) * (block_bytes(conv, form) + QXR_CODE_CHANNELS * sizeof(int32_t));
}

uint8_t *qxr_code_weights(const qxr_conv *conv, const qxr_code_form *form, uint8_t *packed, uint32_t channel)
{
    return packed + form->head_bytes + channel / QXR_CODE_CHANNELS * block_bytes(conv, form) +
           channel % QXR_CODE_CHANNELS * form->unit;
}

size_t qxr_code_place(const qxr_conv *conv, const qxr_code_form *form, uint32_t step)
{
    const uint32_t length = segment_bytes(conv, form), unit = form->unit;
    const size_t at = step / length * qxr_round_up(length, unit) + step % length;
    return at / unit * unit * QXR_CODE_CHANNELS + at % unit;
}

int32_t *qxr_code_init(const qxr_conv *conv, const qxr_code_form *form, uint8_t *packed, uint32_t channel)
{
    uint8_t *init = packed + form->head_bytes + blocks(conv) * block_bytes(conv, form);
    return (int32_t *)(void *)init + channel;
}

/* A byte of codes; their weights join the sum. */
static uint8_t join_codes(const int32_t *codebook, const int32_t *codes, uint32_t count, uint32_t weight_bits,
                          int32_t *sum)
{
    uint32_t byte = 0;
    for (uint32_t i = 0; i < count; i++) {
        byte |= (uint32_t)codes[i] << i * weight_bits;
        *sum = qxr_wrap_add(*sum, codebook[codes[i]]);
    }
    return (uint8_t)byte;
}

/* All weights of channel o; returns their sum. */
static int32_t pack_channel(const qxr_conv *conv, const qxr_code_form *form, uint32_t weight_bits, uint32_t o,
                            uint8_t *to)
{
    const uint32_t channels = conv->in->extent[0], bytes = pixel_bytes(conv, form), taps = conv->row / channels;
    int32_t codes[RUN], sum = 0;
    for (uint32_t tap = 0; tap < taps; tap++)
        for (uint32_t c = 0; c < channels; c += RUN) {
            const uint32_t count = qxr_min(RUN, channels - c);
            qxr_weight_codes(&conv->weights, o, tap * channels + c, count, codes);
            for (uint32_t i = 0; i < count; i += form->per)
                to[qxr_code_place(conv, form, tap * bytes + (c + i) / form->per)] =
                    join_codes(conv->weights.codebook, codes + i, qxr_min(form->per, count - i), weight_bits, &sum);
        }
    return sum;
}

void qxr_codes_pack(const qxr_conv *conv, const qxr_code_form *form, uint32_t weight_bits, uint8_t *packed)
{
    memset(packed, 0, qxr_codes_packed_size(conv, form));
    for (uint32_t o = 0; o < conv->out->extent[0]; o++) {
        const int32_t sum = pack_channel(conv, form, weight_bits, o, qxr_code_weights(conv, form, packed, o));
        *qxr_code_init(conv, form, packed, o) = qxr_wrap_mul(sum, conv->base);
    }
}

int qxr_codes_suit(const qxr_conv *conv, const qxr_code_form *form)
{
    const uint64_t steps = (uint64_t)conv->op->window[0] * conv->op->window[1] * pixel_bytes(conv, form);
    return conv->op->groups == 1u && steps < SCRATCH_LIMIT / 8u && qxr_codes_scratch(conv, form) <= SCRATCH_LIMIT &&
           steps * form->unit * QXR_CODE_CHANNELS * blocks(conv) < QXR_NONE32 / 2u;
}

/* Input rows. */

static uint8_t pack_byte(const qxr_code_form *form, const uint8_t *codes, uint32_t count)
{
    uint32_t byte = 0;
    for (uint32_t i = 0; i < count; i++)
        byte |= (uint32_t)codes[i] << i * form->bits;
    return (uint8_t)byte;
}

/* Some codes without gaps; the last byte may be filled in part. */
static void pack_run(const qxr_code_form *form, const qxr_code_kernel *kernel, const uint8_t *codes, size_t count,
                     uint8_t *to)
{
    size_t i = kernel->pack(form, codes, count, to);
    for (to += i / form->per; i < count; i += form->per)
        *to++ = pack_byte(form, codes + i, count - i < form->per ? (uint32_t)(count - i) : form->per);
}

/* Real zero, the code -base, in every channel. Some bytes behind are written, too, where the row or the next one
 * follows. */
static void fill_padding(const qxr_conv *conv, const qxr_code_form *form, uint8_t *to, size_t pixels)
{
    const uint32_t bytes = pixel_bytes(conv, form), used = conv->in->extent[0] - (bytes - 1u) * form->per;
    uint64_t zeros = 0, filled;
    for (uint32_t i = 0; i < form->per; i++)
        zeros |= (uint64_t)-conv->base << i * form->bits;
    filled = (zeros & 0xFFu) * UINT64_C(0x0101010101010101);
    for (size_t i = 0; i < pixels * bytes; i += sizeof filled)
        __builtin_memcpy(to + i, &filled, sizeof filled);
    if (used < form->per)
        for (size_t i = 1; i <= pixels; i++)
            to[i * bytes - 1u] = (uint8_t)(zeros & ((1u << used * form->bits) - 1u));
}

static void pack_row(const qxr_conv *conv, const qxr_code_form *form, const qxr_code_kernel *kernel,
                     const uint8_t *input, uint32_t row, uint8_t *to)
{
    const size_t channels = conv->in->extent[0], width = conv->in->extent[2], bytes = pixel_bytes(conv, form);
    const uint8_t *from = input + (size_t)row * width * channels;
    if (row >= conv->in->extent[1]) {
        fill_padding(conv, form, to, qxr_padded_width(conv));
        return;
    }
    fill_padding(conv, form, to, conv->op->padding[2]);
    to += conv->op->padding[2] * bytes;
    if (channels % form->per == 0u)
        pack_run(form, kernel, from, width * channels, to);
    else
        for (size_t x = 0; x < width; x++)
            pack_run(form, kernel, from + x * channels, channels, to + x * bytes);
    fill_padding(conv, form, to + width * bytes, conv->op->padding[3]);
}

/* The input rows under these output pixels, in the scratch. */
static qxr_window_rows pack_rows(const qxr_conv *conv, const qxr_code_form *form, const qxr_code_kernel *kernel,
                                 const qxr_conv_buffers *buffers, uint32_t pixel, uint32_t pixels)
{
    const uint32_t width = conv->out->extent[2], first = pixel / width;
    const size_t count = qxr_input_rows(conv, (pixel + pixels - 1u) / width - first + 1u);
    const qxr_window_rows rows = {buffers->scratch, row_bytes(conv, form), pixel_bytes(conv, form), 0, first};
    for (uint32_t i = 0; i < count; i++)
        pack_row(conv, form, kernel, buffers->input, first * conv->op->stride[0] + i - conv->op->padding[0],
                 buffers->scratch + i * rows.pitch);
    return rows;
}

/* Products. */

static void find_segments(const qxr_conv *conv, const qxr_code_form *form, const qxr_window_rows *from,
                          qxr_code_product *p)
{
    const qxr_op *op = conv->op;
    p->outer = op->window[0];
    p->inner = is_joined(conv) ? 1u : op->window[1];
    p->length = segment_bytes(conv, form);
    p->outer_step = op->dilation[0] * from->pitch;
    p->inner_step = op->dilation[1] * from->pixel;
}

/* Where sums go: one of the two. */
typedef struct target {
    int32_t *y;
    int16_t *words;
    size_t stride;
} target;

static void put(const target *t, size_t at, int32_t sum)
{
    if (t->words)
        t->words[at] = (int16_t)sum;
    else
        t->y[at] = sum;
}

/* The windows of some pixels with one block of channels. A tile that ends within them goes through a copy. */
static void multiply(const qxr_code_kernel *kernel, qxr_code_product *p, uint32_t lane, uint32_t lanes,
                     const target *to, size_t at)
{
    int32_t copy[QXR_MOST_CODE_PIXELS * QXR_CODE_CHANNELS];
    const int whole = p->pixels == kernel->pixels && lanes == QXR_CODE_CHANNELS;
    p->out = whole && to->y ? to->y + at : copy;
    p->words = whole && to->words ? to->words + at : NULL;
    p->out_stride = whole ? to->stride : QXR_CODE_CHANNELS;
    kernel->product(p);
    for (uint32_t q = 0; q < p->pixels && !whole; q++)
        for (uint32_t c = 0; c < lanes; c++)
            put(to, at + q * to->stride + c, copy[q * QXR_CODE_CHANNELS + lane + c]);
}

/* Pixels of a tile whose input rows are packed; `done` of it lie before them. */
static void multiply_pixels(const qxr_conv *conv, const qxr_code_form *form, const qxr_code_kernel *kernel,
                            uint8_t *packed, const qxr_window_rows *from, const qxr_tile *tile, const target *to,
                            uint32_t done)
{
    const uint32_t end = tile->channel + tile->channels;
    const size_t block = block_bytes(conv, form);
    const uint8_t *weights = qxr_code_weights(conv, form, packed, 0);
    const int32_t *init = qxr_code_init(conv, form, packed, 0);
    qxr_window_walk w = qxr_walk_windows(conv, from, tile->pixel);
    qxr_code_product p;
    p.head = packed;
    find_segments(conv, form, from, &p);
    for (uint32_t q = 0; q < tile->pixels; q += kernel->pixels) {
        p.pixels = qxr_min(kernel->pixels, tile->pixels - q);
        for (uint32_t i = 0; i < kernel->pixels; i++)
            p.window[i] = i < p.pixels ? qxr_next_window(&w) : p.window[0];
        for (uint32_t c = tile->channel; c < end; c += QXR_CODE_CHANNELS - c % QXR_CODE_CHANNELS) {
            const uint32_t lane = c % QXR_CODE_CHANNELS;
            p.weights = weights + c / QXR_CODE_CHANNELS * block;
            p.init = init + (c - lane);
            multiply(kernel, &p, lane, qxr_min(QXR_CODE_CHANNELS - lane, end - c), to,
                     (done + q) * to->stride + (c - tile->channel));
        }
    }
}

static void make_tile(const qxr_conv *conv, const qxr_code_form *form, const qxr_code_kernel *kernel,
                      const qxr_conv_buffers *buffers, const qxr_tile *tile, const target *to)
{
    const uint32_t width = conv->out->extent[2];
    uint8_t *packed = (uint8_t *)(uintptr_t)buffers->packed; /* only read; packing finds places alike */
    for (uint32_t done = 0; done < tile->pixels;) {
        qxr_tile part = *tile;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_min(tile->pixels - done,
                              (part.pixel / width + chunk_rows(conv, form)) * width - part.pixel);
        const qxr_window_rows rows = pack_rows(conv, form, kernel, buffers, part.pixel, part.pixels);
        multiply_pixels(conv, form, kernel, packed, &rows, &part, to, done);
        done += part.pixels;
    }
}

void qxr_codes_tile(const qxr_conv *conv, const qxr_code_form *form, const qxr_code_kernel *kernel,
                    const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const target to = {y, NULL, tile->channels};
    make_tile(conv, form, kernel, buffers, tile, &to);
}

void qxr_codes_words(const qxr_conv *conv, const qxr_code_form *form, const qxr_code_kernel *kernel,
                     const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y)
{
    const target to = {NULL, y.at, y.pitch};
    make_tile(conv, form, kernel, buffers, tile, &to);
}
