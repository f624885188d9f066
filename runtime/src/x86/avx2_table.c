/* Convolutions of weights of 1 or 2 bits and inputs up to 3, by table look-up with AVX2.
 *
 * Four inputs of neighbouring channels make a byte, and the byte names one of 256 rows of a table: what the sum of
 * those inputs times four weights of 0 or 1 is, for each of the 16 patterns of such weights. A shuffle then gives the
 * sums of 32 output channels at once, whose patterns are its index. Weights are lowest + delta[0] bit0 + delta[1] bit1: each
 * bit is a plane with sums of its own, lowest times the sum of the inputs is the same for all channels.
 *
 * Sums of 8 bits are unsigned and widened to 16 before they can wrap. Packed weights are
 * [block][segment][step][vector of the block][32 patterns], vectors being [32 channels][plane]; narrow layers of up to
 * 16 channels have their two planes, or two steps of their one, in the halves of one vector. */
#include <string.h>

#include "x86/avx2_table_finish.h"
#include "x86/avx2_words.h"

enum { MOST_INPUT = 3 };

static size_t scratch_size(const qxr_conv *conv)
{
    const qxr_table_layout l = qxr_table_plan(conv);
    return qxr_table_scratch(conv, &l);
}

/* Sums fit 16 bits signed, as the last step multiplies them so. */
static int suits(const qxr_conv *conv)
{
    const uint64_t most = (uint64_t)conv->row * conv->input_peak;
    return qxr_storage(conv->in) == QXR_U8 && conv->op->groups == 1u && conv->in->extent[0] % QUAD == 0u &&
           conv->input_peak <= MOST_INPUT && most <= 32767u && qxr_table_coding_of(conv).planes != 0u &&
           scratch_size(conv) <= QXR_ROWS_LIMIT;
}

static size_t packed_size(const qxr_conv *conv) { return qxr_table_plan(conv).bytes; }

/* ---- Sums to results ---- */

/* Steps through the pixels of a tile. */
typedef struct walk {
    const uint8_t *at;     /* first quad under the window */
    const uint32_t *rest;
    size_t step, row_step; /* bytes to the next pixel of the row; from the last of a row to the first of the next */
    uint32_t column, width;
} walk;

static walk start_walk(const qxr_conv *conv, const qxr_table_layout *l, const qxr_table_rows *rows, uint32_t pixel)
{
    const size_t pixel_bytes = (size_t)l->quads * l->quad_bytes;
    walk w;
    w.width = conv->out->extent[2];
    w.column = pixel % w.width;
    w.step = conv->op->stride[1] * pixel_bytes;
    w.at = rows->quads + w.column * w.step;
    w.row_step = conv->op->stride[0] * rows->width * pixel_bytes - (w.width - 1u) * w.step;
    w.rest = rows->rest + w.column;
    return w;
}

static inline void next_pixel(walk *w)
{
    w->rest++;
    if (++w->column == w->width) {
        w->column = 0;
        w->at += w->row_step;
    } else {
        w->at += w->step;
    }
}

/* The next `count` pixels, up to `most`; the others are the first again. */
INLINE void take_pixels(walk *w, uint32_t count, uint32_t most, const uint8_t **row)
{
    if (count == most && w->column + most < w->width) {
        const uint8_t *at = w->at;
        for (uint32_t r = 0; r < most; r++, at += w->step)
            row[r] = at;
        w->at = at;
        w->column += most;
        w->rest += most;
        return;
    }
    for (uint32_t r = 0; r < most; r++) {
        row[r] = r < count ? w->at : row[0];
        if (r < count)
            next_pixel(w);
    }
}

/* What all pixels of a tile and one block of vectors have in common. */
typedef struct block {
    const qxr_table_layout *l;
    const int32_t *add;
    const qxr_table_target *to;
    uint32_t vector, width;
    __m256i deltas;
    __m256i delta[MOST_PLANES];     /* in every 16 bits */
    __m256i words[WIDEST][2];       /* low halves of `add` for each vector of the first plane */
    uint32_t halves[WIDEST];        /* which sixteens of its channels the tile holds */
} block;

static inline void narrow_words(const block *b, const qxr_table_product *p, const uint32_t *rest, uint32_t count, int16_t *y)
{
    const __m256i delta[MOST_PLANES] = {b->delta[0], b->delta[1]}, add = b->words[0][0];
    for (uint32_t r = 0; r < count; r++, y += b->to->stride) {
        const __m256i some = _mm256_set1_epi16((int16_t)rest[r]);
        if (b->l->copies)
            finish_narrow_words(p->sums[r][0], delta, add, some, y, 0);
        else
            finish_narrow_words(p->sums[r][0], delta, add, some, y, 1);
    }
}

static void narrow_block(const block *b, qxr_table_product *p, walk *w, uint32_t pixels)
{
    const uint32_t most = qxr_table_pixels(1);
    int16_t *words = b->to->words;
    int32_t *y = b->to->y;
    for (uint32_t q = 0; q < pixels; q += most) {
        const uint32_t count = qxr_min(most, pixels - q), *rest = w->rest;
        take_pixels(w, count, most, p->row);
        qxr_table_multiply(p, 1, count, b->l->copies);
        if (words)
            narrow_words(b, p, rest, count, words + q * b->to->stride);
        for (uint32_t r = 0; r < count && !words; r++, y += b->to->stride)
            finish_narrow(p->sums[r][0], b->deltas, b->add, _mm256_set1_epi32((int32_t)rest[r]), b->to, y);
    }
}

/* Pixels from q of the tile on. */
INLINE void finish_wide_words(const block *b, const qxr_table_product *p, uint32_t q, uint32_t count, const uint32_t *rest,
                              int two)
{
    const uint32_t planes = two ? 2u : 1u, width = b->width;
    const size_t stride = b->to->stride;
    const __m256i delta[MOST_PLANES] = {b->delta[0], b->delta[1]};
    int16_t *y = b->to->words + q * stride + b->vector / planes * LANES - b->to->first;
    for (uint32_t r = 0; r < count; r++, y += stride) {
        const __m256i (*sums)[2] = (const __m256i (*)[2])p->sums[r], some = _mm256_set1_epi16((int16_t)rest[r]);
        for (uint32_t v = 0; v < width; v += planes)
            finish_words(sums + v, delta, b->words[v], some, b->halves[v], y + v / planes * LANES, two);
    }
}

static void finish_wide(const block *b, const qxr_table_product *p, uint32_t q, uint32_t count, const uint32_t *rest)
{
    const uint32_t planes = b->l->code.planes;
    for (uint32_t r = 0; r < count; r++) {
        const __m256i (*sums)[2] = (const __m256i (*)[2])p->sums[r], some = _mm256_set1_epi32((int32_t)rest[r]);
        int32_t *y = b->to->y + (q + r) * b->to->stride;
        for (uint32_t v = 0; v < b->width; v += planes) {
            const uint32_t channel = (b->vector + v) / planes * LANES;
            if (channel < b->to->last && channel + LANES > b->to->first)
                finish_group(b->l, sums + v, b->deltas, b->add, some, b->to, y, channel);
        }
    }
}

static void wide_block(const block *b, qxr_table_product *p, walk *w, uint32_t pixels)
{
    const uint32_t most = qxr_table_pixels(b->width);
    for (uint32_t q = 0; q < pixels; q += most) {
        const uint32_t count = qxr_min(most, pixels - q), *rest = w->rest;
        take_pixels(w, count, most, p->row);
        qxr_table_multiply(p, b->width, count, 0);
        if (!b->to->words)
            finish_wide(b, p, q, count, rest);
        else if (b->l->code.planes == 2u)
            finish_wide_words(b, p, q, count, rest, 1);
        else
            finish_wide_words(b, p, q, count, rest, 0);
    }
}

/* Some pixels and all vectors of one block. */
static void multiply_block(const qxr_conv *conv, const qxr_table_layout *l, const qxr_table_rows *rows,
                           const int32_t *add, qxr_table_product *p, uint32_t vector, const qxr_tile *tile,
                           const qxr_table_target *to)
{
    const uint32_t low = (uint32_t)l->code.delta[0], high = (uint32_t)l->code.delta[l->copies ? 0 : 1];
    block b;
    b.l = l;
    b.add = add;
    b.to = to;
    b.vector = vector;
    b.width = qxr_min(WIDEST, l->vectors - vector);
    b.deltas = _mm256_set1_epi32((int32_t)((low & 0xFFFFu) | high << 16));
    b.delta[0] = _mm256_set1_epi16((int16_t)low);
    b.delta[1] = _mm256_set1_epi16((int16_t)high);
    for (uint32_t v = 0; v < b.width && to->words; v += l->code.planes) {
        const uint32_t channel = (vector + v) / l->code.planes * LANES;
        for (uint32_t half = 0; half < 2u; half++)
            b.words[v][half] = low_halves(add + channel + half * (LANES / 2));
        b.halves[v] = channel >= to->first && channel < to->last ? 1u : 0u;
        if (channel + LANES / 2 >= to->first && channel + LANES / 2 < to->last)
            b.halves[v] |= 2u;
    }
    walk w = start_walk(conv, l, rows, tile->pixel);
    if (l->narrow)
        narrow_block(&b, p, &w, tile->pixels);
    else
        wide_block(&b, p, &w, tile->pixels);
}

/* Results of 32 bits to y, or of 16 bits to words. */
static void make_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y,
                      int16_t *words, size_t stride)
{
    const qxr_table_layout l = qxr_table_plan(conv);
    if (l.bits) {
        qxr_table_bits_tile(conv, &l, buffers, tile, y, words, stride);
        return;
    }
    const int32_t *add = (const int32_t *)(const void *)(buffers->packed + l.sums);
    const uint32_t width = conv->out->extent[2], rows_at_a_time = qxr_table_chunk(conv, &l);
    const uint32_t first = tile->channel / LANES * l.code.planes;
    const uint32_t end = l.narrow ? 1u : ((tile->channel + tile->channels - 1u) / LANES + 1u) * l.code.planes;
    qxr_table_product p;
    memset(p.sums, 0, sizeof p.sums); /* compilers do not see that products write what is read */
    p.outer = l.outer;
    p.inner = l.inner;
    p.steps = l.steps;
    for (uint32_t done = 0; done < tile->pixels;) {
        const qxr_table_target to = {y ? y + done * stride : NULL, words ? words + done * stride : NULL, tile->channel,
                           tile->channel + tile->channels, stride};
        qxr_tile part = *tile;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_min(tile->pixels - done, (part.pixel / width + rows_at_a_time) * width - part.pixel);
        const qxr_table_rows rows = qxr_table_inputs(conv, &l, buffers, part.pixel, part.pixels);
        p.outer_step = (size_t)conv->op->dilation[0] * rows.width * l.quads * l.quad_bytes;
        p.inner_step = (size_t)conv->op->dilation[1] * l.quads * l.quad_bytes;
        for (uint32_t v = l.narrow ? 0u : first / WIDEST * WIDEST; v < end; v += WIDEST) {
            p.weights = (const __m256i *)(const void *)(buffers->packed + QXR_PACK_HEAD + v * l.vector_bytes);
            p.runs = (const uint16_t *)(const void *)(buffers->packed + l.runs) + v / WIDEST * l.most_runs;
            multiply_block(conv, &l, &rows, add, &p, v, &part, &to);
        }
        done += part.pixels;
    }
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    make_tile(conv, buffers, tile, y, NULL, tile->channels);
}

static void words_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y)
{
    make_tile(conv, buffers, tile, NULL, y.at, y.pitch);
}

const qxr_conv_kernel qxr_avx2_table = {"avx2 table", suits, packed_size, qxr_table_pack, scratch_size, tile_of,
                                        words_tile, 0};
