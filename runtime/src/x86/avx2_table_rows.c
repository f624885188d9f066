/* Inputs for the table look-up: four of up to 2 bits each become the offset of a row of the table, or that row. */
#include "x86/avx2_table.h"

#include <string.h>

enum {
    ROWS_BYTES = 44 << 10, /* of inputs that are made at a time */
    SLACK = 128            /* whole vectors are written, and two steps read together */
};

/* The table: entry [x][w] is the sum over i < 4 of bit i of w times bits 2 i and 2 i + 1 of x. */
#define ENTRY(x, w)                                                                             \
    (((w) & 1 ? (x) & 3 : 0) + ((w) & 2 ? (x) >> 2 & 3 : 0) + ((w) & 4 ? (x) >> 4 & 3 : 0) + \
     ((w) & 8 ? (x) >> 6 : 0))
#define FOUR_ENTRIES(x, w) ENTRY(x, w), ENTRY(x, (w) + 1), ENTRY(x, (w) + 2), ENTRY(x, (w) + 3)
#define ROW(x) FOUR_ENTRIES(x, 0), FOUR_ENTRIES(x, 4), FOUR_ENTRIES(x, 8), FOUR_ENTRIES(x, 12)
#define FOUR_ROWS(x) ROW(x), ROW((x) + 1), ROW((x) + 2), ROW((x) + 3)
#define SIXTEEN_ROWS(x) FOUR_ROWS(x), FOUR_ROWS((x) + 4), FOUR_ROWS((x) + 8), FOUR_ROWS((x) + 12)
#define SIXTY_FOUR_ROWS(x) SIXTEEN_ROWS(x), SIXTEEN_ROWS((x) + 16), SIXTEEN_ROWS((x) + 32), SIXTEEN_ROWS((x) + 48)

const uint8_t qxr_table[256 * ENTRY_BYTES] __attribute__((aligned(64))) = {
    SIXTY_FOUR_ROWS(0), SIXTY_FOUR_ROWS(64), SIXTY_FOUR_ROWS(128), SIXTY_FOUR_ROWS(192)};

static size_t padded_width(const qxr_conv *conv)
{
    return (size_t)conv->in->extent[2] + conv->op->padding[2] + conv->op->padding[3];
}

static size_t input_rows(const qxr_conv *conv, size_t out_rows)
{
    return (out_rows - 1u) * conv->op->stride[0] + (size_t)(conv->op->window[0] - 1u) * conv->op->dilation[0] + 1u;
}

/* Bytes of an input row: its quads, and the sum of each pixel. */
static size_t row_bytes(const qxr_conv *conv, const qxr_table_layout *l)
{
    return padded_width(conv) * ((size_t)l->quads * l->quad_bytes + sizeof(uint32_t));
}

uint32_t qxr_table_chunk(const qxr_conv *conv, const qxr_table_layout *l)
{
    const size_t room = ROWS_BYTES / row_bytes(conv, l), first = input_rows(conv, 1);
    const size_t rows = room > first ? (room - first) / conv->op->stride[0] + 1u : 1u;
    return rows < conv->out->extent[1] ? (uint32_t)rows : conv->out->extent[1];
}

/* Where everything lies in the scratch memory, for some rows of the result. */
typedef struct places {
    size_t sums, rest, offsets, quads, end; /* rest: sums of windows, and behind them of columns */
} places;

static places place_all(const qxr_conv *conv, const qxr_table_layout *l, size_t out_rows)
{
    const size_t rows = input_rows(conv, out_rows), pitch = padded_width(conv);
    places p;
    p.sums = 0;
    p.rest = rows * pitch * sizeof(uint32_t);
    p.offsets = p.rest + (out_rows * conv->out->extent[2] + pitch) * sizeof(uint32_t);
    p.quads = qxr_round_up(p.offsets + (l->copies ? pitch * l->quads * sizeof(uint16_t) + SLACK : 0u), 32u);
    p.end = p.quads + rows * pitch * l->quads * l->quad_bytes + SLACK;
    if (l->bits) /* pixels that are not there */
        p.end += (size_t)MOST_PIXELS * conv->op->stride[1] * l->quads * l->quad_bytes;
    return p;
}

size_t qxr_table_scratch(const qxr_conv *conv, const qxr_table_layout *l)
{
    return place_all(conv, l, qxr_table_chunk(conv, l)).end;
}

/* 16 offsets from 64 inputs. */
static inline __m256i offsets(__m256i a, __m256i b)
{
    const __m256i pairs = _mm256_set1_epi16(1 | 4 << 8);
    const __m256i quads = _mm256_set1_epi32(ENTRY_BYTES | 16 * ENTRY_BYTES << 16);
    a = _mm256_madd_epi16(_mm256_maddubs_epi16(a, pairs), quads);
    b = _mm256_madd_epi16(_mm256_maddubs_epi16(b, pairs), quads);
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
}

/* Writes, as it reads, up to 64 elements behind the last. */
static void offset_run(const uint8_t *x, size_t count, uint16_t *to)
{
    for (size_t i = 0; i < count; i += 64u) {
        const __m256i *at = (const __m256i *)(const void *)(x + i);
        const __m256i made = offsets(_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1));
        _mm256_storeu_si256((__m256i *)(void *)(to + i / QUAD), made);
    }
}

static inline __m256i sad(const uint8_t *x)
{
    return _mm256_sad_epu8(_mm256_loadu_si256((const __m256i *)(const void *)x), _mm256_setzero_si256());
}

/* Sums of pixels of 16 channels, as many as four at a time give; returns how many. */
static uint32_t sum_narrow(const uint8_t *x, uint32_t pixels, uint32_t *sum)
{
    uint32_t p = 0;
    for (; p + 4u <= pixels; p += 4u, x += 64) {
        const __m256i halves = _mm256_hadd_epi32(sad(x), sad(x + 32)), four = _mm256_hadd_epi32(halves, halves);
        _mm_storeu_si128((__m128i *)(void *)(sum + p),
                         _mm_unpacklo_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1)));
    }
    return p;
}

/* Sums of the channels of each pixel. */
static void sum_pixels(const uint8_t *x, uint32_t pixels, uint32_t channels, uint32_t *sum)
{
    const __m128i zero = _mm_setzero_si128();
    const uint32_t whole = channels / 16u * 16u;
    uint32_t p = channels == 16u ? sum_narrow(x, pixels, sum) : 0u;
    for (x += (size_t)p * channels; p < pixels; p++, x += channels) {
        __m128i some = zero;
        uint32_t rest = 0;
        for (uint32_t i = 0; i < whole; i += 16u)
            some = _mm_add_epi32(some, _mm_sad_epu8(_mm_loadu_si128((const __m128i *)(const void *)(x + i)), zero));
        for (uint32_t i = whole; i < channels; i += QUAD)
            rest += (uint32_t)x[i] + x[i + 1u] + x[i + 2u] + x[i + 3u];
        sum[p] = rest + (uint32_t)_mm_cvtsi128_si32(some) + (uint32_t)_mm_extract_epi32(some, 2);
    }
}

static void fill_pixels(const qxr_conv *conv, size_t pixels, uint16_t *to, uint32_t *sum)
{
    const uint32_t zero = (uint32_t)-conv->base, quads = conv->in->extent[0] / QUAD;
    for (size_t i = 0; i < pixels * quads; i++)
        to[i] = (uint16_t)(zero * 0x55u * ENTRY_BYTES);
    for (size_t i = 0; i < pixels; i++)
        sum[i] = zero * conv->in->extent[0];
}

static void offset_row(const qxr_conv *conv, const uint8_t *input, uint32_t row, int sums, uint16_t *to, uint32_t *sum)
{
    const uint32_t channels = conv->in->extent[0], width = conv->in->extent[2], quads = channels / QUAD;
    const uint32_t left = conv->op->padding[2], right = conv->op->padding[3];
    const uint8_t *from = input + (size_t)row * width * channels;
    if (row >= conv->in->extent[1]) {
        fill_pixels(conv, padded_width(conv), to, sum);
        return;
    }
    fill_pixels(conv, left, to, sum);
    offset_run(from, (size_t)width * channels, to + (size_t)left * quads);
    if (sums)
        sum_pixels(from, width, channels, sum + left);
    fill_pixels(conv, right, to + (size_t)(left + width) * quads, sum + left + width);
}

/* The same for inputs of one bit. */
static void bits_row(const qxr_conv *conv, const uint8_t *input, uint32_t row, const qxr_table_layout *l, uint8_t *to,
                     uint32_t *sum)
{
    const uint32_t channels = conv->in->extent[0], width = conv->in->extent[2];
    const uint32_t left = conv->op->padding[2], right = conv->op->padding[3];
    const uint8_t *from = input + (size_t)row * width * channels;
    const size_t pixel = (size_t)l->quads * l->quad_bytes;
    const int inside = row < conv->in->extent[1];
    qxr_table_bits_zeros(conv, l, inside ? left : left + width + right, to);
    if (inside) {
        qxr_table_bits_entries(l, from, width * channels, to + left * pixel);
        qxr_table_bits_zeros(conv, l, right, to + (left + width) * pixel);
    }
    if (l->symmetric)
        return;
    if (inside)
        sum_pixels(from, width, channels, sum + left);
    for (uint32_t i = 0; i < left + width + right; i++)
        if (!inside || i < left || i >= left + width)
            sum[i] = (uint32_t)-conv->base * channels;
}

static inline void copy_entry(uint16_t offset, uint8_t *to)
{
    _mm_store_si128((__m128i *)(void *)to, _mm_load_si128((const __m128i *)(const void *)(qxr_table + offset)));
}

static void copy_entries(const uint16_t *offset, size_t count, uint8_t *to)
{
    size_t i = 0;
    for (; i + 4u <= count; i += 4u, to += 4 * ENTRY_BYTES) {
        copy_entry(offset[i], to);
        copy_entry(offset[i + 1u], to + ENTRY_BYTES);
        copy_entry(offset[i + 2u], to + 2 * ENTRY_BYTES);
        copy_entry(offset[i + 3u], to + 3 * ENTRY_BYTES);
    }
    for (; i < count; i++, to += ENTRY_BYTES)
        copy_entry(offset[i], to);
}

/* to[i] += from[i step] */
static void add_every(uint32_t *restrict to, const uint32_t *restrict from, size_t count, size_t step)
{
    if (step == 1u)
        for (size_t i = 0; i < count; i++)
            to[i] += from[i];
    else
        for (size_t i = 0; i < count; i++)
            to[i] += from[i * step];
}

/* One row of the result: what all its channels have in common. First the sums of the columns under the window. */
static void sum_windows(const qxr_conv *conv, int32_t lowest, const uint32_t *sum, size_t pitch, uint32_t *rest)
{
    const qxr_op *op = conv->op;
    const size_t width = conv->out->extent[2];
    uint32_t *columns = rest + width;
    memset(rest, 0, (width + pitch) * sizeof *rest);
    for (uint32_t v = 0; v < op->window[0]; v++)
        add_every(columns, sum + v * op->dilation[0] * pitch, pitch, 1);
    for (uint32_t h = 0; h < op->window[1]; h++)
        add_every(rest, columns + (size_t)h * op->dilation[1], width, op->stride[1]);
    for (size_t x = 0; x < width; x++)
        rest[x] *= (uint32_t)lowest;
}

qxr_table_rows qxr_table_inputs(const qxr_conv *conv, const qxr_table_layout *l, const qxr_conv_buffers *buffers,
                                uint32_t pixel, uint32_t pixels)
{
    const uint32_t width = conv->out->extent[2], first = pixel / width;
    const uint32_t out_rows = (pixel + pixels - 1u) / width - first + 1u;
    const size_t rows = input_rows(conv, out_rows), pitch = padded_width(conv), row_quads = pitch * l->quads;
    const places at = place_all(conv, l, out_rows);
    uint8_t *quads = buffers->scratch + at.quads;
    uint16_t *offsets_of_row = (uint16_t *)(void *)(buffers->scratch + at.offsets);
    uint32_t *sum = (uint32_t *)(void *)(buffers->scratch + at.sums);
    uint32_t *rest = (uint32_t *)(void *)(buffers->scratch + at.rest);
    const qxr_table_rows made = {quads, rest, (uint32_t)pitch};
    for (size_t i = 0; i < rows; i++) {
        const uint32_t row = first * conv->op->stride[0] + (uint32_t)i - conv->op->padding[0];
        uint8_t *to = quads + i * row_quads * l->quad_bytes;
        if (l->bits) {
            bits_row(conv, buffers->input, row, l, to, sum + i * pitch);
            continue;
        }
        offset_row(conv, buffers->input, row, l->code.lowest != 0, l->copies ? offsets_of_row : (uint16_t *)(void *)to,
                   sum + i * pitch);
        if (l->copies)
            copy_entries(offsets_of_row, row_quads, to);
    }
    for (uint32_t i = 0; i < out_rows && l->code.lowest && !l->symmetric; i++)
        sum_windows(conv, l->code.lowest, sum + (size_t)i * conv->op->stride[0] * pitch, pitch,
                    rest + (size_t)i * width);
    if (!l->code.lowest)
        memset(rest, 0, (size_t)out_rows * width * sizeof *rest);
    memset(quads + rows * row_quads * l->quad_bytes, 0, SLACK);
    return made;
}
