/* Convolutions of wide codes with fewer multiplications: Winograd's F(4, 3) along the rows, exact in integers.
 *
 * Four neighbouring results of three taps take 6 products instead of 12. The taps of a row are divided by the stride into
 * phases, and these into groups of three, two or one, so that a 7x7 window of stride 2 takes 16 for 28. Fractions of the
 * usual transforms disappear by the factor 24 in the weights; the sums are then 24 times the results, and are divided
 * exactly. Sums over the rows of the window, the groups and the channels come before the last transform, as it is linear.
 *
 * The transformed inputs are i16 [row][block of four results][kind of sum][group][channel]; packed weights are, for 16
 * channels each, [plane][kind][row of the window][step][channel][2], behind the offsets of the steps' inputs. */
#include <string.h>

#include "x86/avx2_winograd.h"

enum {
    ROW_BYTES = 64 << 10, /* transformed rows that are made at a time */
    SLACK = 64,
    MANY_STEPS = 12,      /* of four bytes each, whose sums fit 16 bits */
    MOST_WEIGHTS = 2 << 20,
    LARGEST_INPUT = 32767 / 10,
    INVERSE_OF_3 = (int32_t)0xAAAAAAAB
};

/* Bytes of an input row in 16 bits, with everything the last block reads. */
static size_t line_bytes(const qxr_conv *conv, const qxr_winograd_layout *l)
{
    const qxr_op *op = conv->op;
    const size_t read = ((size_t)l->blocks * OUTPUTS + 2u) * op->stride[1] + op->window[1];
    const size_t written = (size_t)conv->in->extent[2] + op->padding[2];
    return qxr_round_up((read > written ? read : written) * conv->in->extent[0] * sizeof(int16_t) + SLACK, 64u);
}

static uint32_t input_rows(const qxr_conv *conv, uint32_t out_rows)
{
    return (out_rows - 1u) * conv->op->stride[0] + (conv->op->window[0] - 1u) * conv->op->dilation[0] + 1u;
}

static uint32_t chunk_rows(const qxr_conv *conv, const qxr_winograd_layout *l)
{
    const size_t room = ROW_BYTES / l->pitch, first = input_rows(conv, 1);
    const size_t rows = room > first ? (room - first) / conv->op->stride[0] + 1u : 1u;
    return rows < conv->out->extent[1] ? (uint32_t)rows : conv->out->extent[1];
}

static size_t scratch_size(const qxr_conv *conv)
{
    const qxr_winograd_layout l = qxr_winograd_plan(conv);
    return line_bytes(conv, &l) + input_rows(conv, chunk_rows(conv, &l)) * l.pitch + SLACK;
}

static size_t packed_size(const qxr_conv *conv) { return qxr_winograd_plan(conv).bytes; }

/* Largest magnitude of an input as a number, at least 1. */
static uint32_t value_peak(const qxr_conv *conv)
{
    const int32_t lo = conv->in->lo, hi = conv->in->hi;
    return qxr_max(lo < 0 ? 0u - (uint32_t)lo : 1u, hi < 0 ? 0u - (uint32_t)hi : (uint32_t)hi);
}

/* Where it is the fastest (measured, docs/kernels.md): bytes of few bits are better added in 16 bits, the last block of a
 * row is as much work as the others, and weights grow by a half or double. What is summed stays within 16 and 32 bits. */
static int suits(const qxr_conv *conv)
{
    const qxr_op *op = conv->op;
    const uint64_t digits = qxr_min(qxr_max(conv->weight_peak, 1u), LARGEST_WEIGHT), peak = value_peak(conv);
    if (op->groups != 1u || op->dilation[1] != 1u || op->window[1] > MOST_TAPS || qxr_storage(conv->in) == QXR_I32 ||
        peak > LARGEST_INPUT || conv->weight_peak >> DIGIT_BITS >= LARGEST_WEIGHT ||
        conv->row * digits * peak * FACTOR > INT32_MAX)
        return 0;
    const qxr_winograd_layout l = qxr_winograd_plan(conv);
    const uint64_t products = 2u * (uint64_t)l.all_steps * l.blocks;
    const uint64_t direct = (uint64_t)conv->row * conv->out->extent[2];
    return 2u * conv->input_peak * (uint64_t)conv->weight_peak * MANY_STEPS > 32767u && 3u * products <= 2u * direct &&
           l.bytes <= MOST_WEIGHTS && input_rows(conv, 1) * l.pitch <= QXR_ROWS_LIMIT &&
           scratch_size(conv) <= QXR_ROWS_LIMIT;
}

/* ---- Inputs ---- */

/* An input row as numbers; `line` is zero but for what earlier rows left where this one has its pixels. */
static void read_line(const qxr_conv *conv, const uint8_t *input, uint32_t row, int16_t *line)
{
    const size_t channels = conv->in->extent[0], count = conv->in->extent[2] * channels;
    int16_t *to = line + conv->op->padding[2] * channels;
    const uint8_t *from = input + (size_t)row * count * qxr_element_bytes(conv->in);
    if (row >= conv->in->extent[1])
        memset(to, 0, count * sizeof *to);
    else if (qxr_storage(conv->in) == QXR_I16)
        memcpy(to, from, count * sizeof *to);
    else
        for (size_t i = 0; i < count; i++)
            to[i] = (int16_t)(from[i] + conv->base);
}

/* Four channels. */
INLINE __m128i load_four(const int16_t *at) { return _mm_loadl_epi64((const __m128i *)(const void *)at); }
INLINE void store_four(int16_t *at, __m128i x) { _mm_storel_epi64((__m128i *)(void *)at, x); }
INLINE __m128i four_times(__m128i x) { return _mm_slli_epi16(x, 2); }

/* B d of F(4, 3): d are the inputs of six results one tap apart, `step` elements from each other; of one tap by itself,
 * those of the four. `at`: where the kinds lie. */
INLINE void transform_four(uint32_t taps, const uint32_t *at, const int16_t *d, size_t step, int16_t *to)
{
    const __m128i d0 = load_four(d), d1 = load_four(d + step), d2 = load_four(d + 2 * step);
    const __m128i d3 = load_four(d + 3 * step);
    if (taps == 1u) {
        store_four(to + at[A0], d0);
        store_four(to + at[A0 + 1], d1);
        store_four(to + at[A0 + 2], d2);
        store_four(to + at[A3], d3);
        return;
    }
    const __m128i d4 = load_four(d + 4 * step), d42 = _mm_sub_epi16(d4, d2), d31 = _mm_sub_epi16(d3, d1);
    const __m128i d13 = _mm_slli_epi16(d31, 1);
    store_four(to + at[A0], _mm_add_epi16(four_times(_mm_sub_epi16(d0, d2)), d42));
    if (taps == 3u)
        store_four(to + at[A3], _mm_sub_epi16(_mm_sub_epi16(load_four(d + 5 * step), d3), four_times(d31)));
    store_four(to + at[M1], _mm_sub_epi16(_mm_add_epi16(d3, d4), four_times(_mm_add_epi16(d1, d2))));
    store_four(to + at[M2], _mm_add_epi16(_mm_sub_epi16(d4, d3), four_times(_mm_sub_epi16(d1, d2))));
    store_four(to + at[M3], _mm_add_epi16(d42, d13));
    store_four(to + at[M4], _mm_sub_epi16(d42, d13));
}

/* One group of all blocks of a row. */
INLINE void transform_group(const qxr_conv *conv, const qxr_winograd_layout *l, const qxr_winograd_group *g,
                            uint32_t taps, uint32_t channels, const int16_t *line, int16_t *to)
{
    const size_t step = (size_t)conv->op->stride[1] * conv->in->extent[0], elements = l->elements;
    const uint32_t blocks = l->blocks;
    uint32_t at[KINDS];
    memcpy(at, g->at, sizeof at);
    line += g->tap * conv->in->extent[0];
    for (uint32_t b = 0; b < blocks; b++, line += OUTPUTS * step, to += elements)
        for (uint32_t c = 0; c < channels; c += 4u)
            transform_four(taps, at, line + c, step, to + c);
}

/* Groups in their order: what is written beyond the channels of one is what the next one writes. */
INLINE void transform_groups(const qxr_conv *conv, const qxr_winograd_layout *l, uint32_t channels,
                             const int16_t *line, int16_t *to)
{
    for (uint32_t i = 0; i < l->groups; i++) {
        const qxr_winograd_group *g = &l->group[i];
        if (g->taps == 1u)
            transform_group(conv, l, g, 1, channels, line, to);
        else if (g->taps == 2u)
            transform_group(conv, l, g, 2, channels, line, to);
        else
            transform_group(conv, l, g, 3, channels, line, to);
    }
}

static void transform_row(const qxr_conv *conv, const qxr_winograd_layout *l, const int16_t *line, int16_t *to)
{
    if (conv->in->extent[0] <= 4u)
        transform_groups(conv, l, 4, line, to); /* a constant: no loop */
    else
        transform_groups(conv, l, conv->in->extent[0], line, to);
}

/* The transformed inputs of some rows of the result. */
static const uint8_t *transform_rows(const qxr_conv *conv, const qxr_winograd_layout *l,
                                     const qxr_conv_buffers *buffers, uint32_t first, uint32_t rows)
{
    int16_t *line = (int16_t *)(void *)buffers->scratch;
    uint8_t *to = buffers->scratch + line_bytes(conv, l);
    memset(line, 0, line_bytes(conv, l));
    for (uint32_t r = 0; r < input_rows(conv, rows); r++) {
        read_line(conv, buffers->input, first * conv->op->stride[0] + r - conv->op->padding[0], line);
        transform_row(conv, l, line, (int16_t *)(void *)(to + r * l->pitch));
    }
    return to;
}

/* ---- Products ---- */

typedef struct sums {
    __m256i of[KINDS][BLOCKS][2];
} sums;

INLINE void add_products(__m256i *sum, const uint8_t *at, __m256i w0, __m256i w1)
{
    int32_t two;
    memcpy(&two, at, sizeof two);
    const __m256i x = _mm256_set1_epi32(two);
    sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(x, w0));
    sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(x, w1));
}

/* All steps of one kind for four blocks. */
static __attribute__((noinline)) void multiply_kind(const uint8_t *const *block, const int32_t *offset, uint32_t steps,
                                                    const __m256i *w, __m256i (*sum)[2])
{
    const __m256i zero = _mm256_setzero_si256();
    const uint8_t *b0 = block[0], *b1 = block[1], *b2 = block[2], *b3 = block[3];
    __m256i s0[2] = {zero, zero}, s1[2] = {zero, zero}, s2[2] = {zero, zero}, s3[2] = {zero, zero};
    for (uint32_t i = 0; i < steps; i++, w += 2) {
        const __m256i w0 = _mm256_load_si256(w), w1 = _mm256_load_si256(w + 1);
        const size_t at = (size_t)offset[i];
        add_products(s0, b0 + at, w0, w1);
        add_products(s1, b1 + at, w0, w1);
        add_products(s2, b2 + at, w0, w1);
        add_products(s3, b3 + at, w0, w1);
    }
    memcpy(sum[0], s0, sizeof s0);
    memcpy(sum[1], s1, sizeof s1);
    memcpy(sum[2], s2, sizeof s2);
    memcpy(sum[3], s3, sizeof s3);
}

/* 24 y to y: the low three bits are zero, and the division by 3 is exact. */
INLINE __m256i divided(__m256i sum)
{
    return _mm256_mullo_epi32(_mm256_srai_epi32(sum, 3), _mm256_set1_epi32(INVERSE_OF_3));
}

INLINE __m256i times(__m256i x, int bits) { return _mm256_slli_epi32(x, bits); }
INLINE __m256i plus(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }

/* A^T of F(4, 3): the four results of a block, eight channels. */
INLINE void combine(const sums *s, uint32_t b, uint32_t half, __m256i *y)
{
    const __m256i m1 = s->of[M1][b][half], m2 = s->of[M2][b][half], m3 = s->of[M3][b][half], m4 = s->of[M4][b][half];
    const __m256i even = plus(m1, m2), odd = _mm256_sub_epi32(m1, m2);
    const __m256i far = plus(m3, m4), skew = _mm256_sub_epi32(m3, m4);
    y[0] = divided(plus(s->of[A0][b][half], plus(even, far)));
    y[1] = divided(plus(s->of[A0 + 1][b][half], plus(odd, times(skew, 1))));
    y[2] = divided(plus(s->of[A0 + 2][b][half], plus(even, times(far, 2))));
    y[3] = divided(plus(s->of[A3][b][half], plus(odd, times(skew, 3))));
}

/* Where the results of a block go. */
typedef struct target {
    int32_t *y;                 /* of its first result and channel, or of where they would be */
    uint32_t begin, end;        /* results that the tile holds */
    uint32_t first, last;       /* channels of these 16 that it holds */
    size_t stride;
} target;

static void write_block(const sums *s, uint32_t b, const target *to, int join)
{
    int32_t copy[OUTPUTS * CHANNELS];
    const int whole = to->begin == 0u && to->end == OUTPUTS && to->first == 0u && to->last == CHANNELS;
    const size_t stride = whole ? to->stride : CHANNELS, count = (to->last - to->first) * sizeof *copy;
    int32_t *out = whole ? to->y : copy;
    for (uint32_t i = to->begin; join && !whole && i < to->end; i++)
        memcpy(copy + i * CHANNELS + to->first, to->y + i * to->stride + to->first, count);
    for (uint32_t half = 0; half < 2u; half++) {
        __m256i y[OUTPUTS];
        combine(s, b, half, y);
        for (uint32_t i = 0; i < OUTPUTS; i++) {
            __m256i *at = (__m256i *)(void *)(out + i * stride + half * 8u);
            if (join)
                y[i] = plus(y[i], times(_mm256_loadu_si256(at), DIGIT_BITS));
            _mm256_storeu_si256(at, y[i]);
        }
    }
    for (uint32_t i = to->begin; !whole && i < to->end; i++)
        memcpy(to->y + i * to->stride + to->first, copy + i * CHANNELS + to->first, count);
}

/* Steps through the blocks that hold pixels of a tile. */
typedef struct walk {
    uint32_t row, block, blocks;
    uint32_t pixel, end, width; /* of the tile, as pixels of the rows at hand */
} walk;

/* The next block: its inputs, and its target relative to the tile's first pixel. */
static const uint8_t *next_block(const qxr_winograd_layout *l, walk *w, const uint8_t *rows, size_t row_step,
                                 const target *tile, target *to)
{
    const uint8_t *at = rows + w->row * row_step + (size_t)w->block * l->elements * sizeof(int16_t);
    const uint32_t first = w->row * w->width + w->block * OUTPUTS; /* pixel of its first result */
    const uint32_t last = qxr_min(qxr_min(first + OUTPUTS, (w->row + 1u) * w->width), w->end);
    *to = *tile;
    to->begin = w->pixel > first ? w->pixel - first : 0u;
    to->end = last - first;
    to->y += ((ptrdiff_t)first - (ptrdiff_t)w->pixel) * (ptrdiff_t)tile->stride;
    if (++w->block == w->blocks) {
        w->block = 0;
        w->row++;
    }
    return at;
}

static void multiply_planes(const qxr_conv *conv, const qxr_winograd_layout *l, const uint8_t *packed,
                            const uint8_t *weights, const uint8_t *const *block, const target *to, uint32_t count)
{
    sums s;
    for (uint32_t p = l->planes; p-- > 0u;) {
        const int32_t *offset = (const int32_t *)(const void *)packed;
        const __m256i *w = (const __m256i *)(const void *)(weights + p * l->plane_bytes);
        for (uint32_t kind = 0; kind < KINDS; kind++) {
            const uint32_t steps = l->steps[kind] * conv->op->window[0];
            multiply_kind(block, offset, steps, w, s.of[kind]);
            offset += steps;
            w += 2u * steps;
        }
        for (uint32_t b = 0; b < count; b++)
            write_block(&s, b, &to[b], p + 1u < l->planes);
    }
}

/* Some pixels, within the rows at hand, and all channels of the tile. */
static void multiply_rows(const qxr_conv *conv, const qxr_winograd_layout *l, const qxr_conv_buffers *buffers,
                          const uint8_t *rows, const qxr_tile *tile, int32_t *y)
{
    const uint32_t width = conv->out->extent[2], column = tile->pixel % width, end = tile->channel + tile->channels;
    const size_t row_step = conv->op->stride[0] * l->pitch;
    for (uint32_t o = tile->channel / CHANNELS * CHANNELS; o < end; o += CHANNELS) {
        const uint8_t *weights = buffers->packed + l->weights + o / CHANNELS * l->plane_bytes * l->planes;
        const uint32_t first = qxr_max(tile->channel, o) - o, last = qxr_min(end - o, CHANNELS);
        const target all = {y + ((ptrdiff_t)o - (ptrdiff_t)tile->channel), 0, 0, first, last, tile->channels};
        walk w = {0, column / OUTPUTS, l->blocks, column, column + tile->pixels, width};
        while (w.row * width + w.block * OUTPUTS < w.end) {
            const uint8_t *block[BLOCKS];
            target to[BLOCKS];
            uint32_t count = 0;
            for (; count < BLOCKS && w.row * width + w.block * OUTPUTS < w.end; count++)
                block[count] = next_block(l, &w, rows, row_step, &all, &to[count]);
            for (uint32_t b = count; b < BLOCKS; b++)
                block[b] = block[0];
            multiply_planes(conv, l, buffers->packed, weights, block, to, count);
        }
    }
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const qxr_winograd_layout l = qxr_winograd_plan(conv);
    const uint32_t width = conv->out->extent[2], rows_at_a_time = chunk_rows(conv, &l);
    for (uint32_t done = 0; done < tile->pixels;) {
        qxr_tile part = *tile;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_min(tile->pixels - done, (part.pixel / width + rows_at_a_time) * width - part.pixel);
        const uint32_t first = part.pixel / width, last = (part.pixel + part.pixels - 1u) / width;
        const uint8_t *rows = transform_rows(conv, &l, buffers, first, last - first + 1u);
        multiply_rows(conv, &l, buffers, rows, &part, y + (size_t)done * tile->channels);
        done += part.pixels;
    }
}

const qxr_conv_kernel qxr_avx2_winograd = {"avx2 winograd", suits,        packed_size,
                                           qxr_winograd_pack, scratch_size, tile_of, NULL, 0};
