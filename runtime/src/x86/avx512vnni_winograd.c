/* Convolutions of few bits with half of the products: Winograd's F(4, 3) along the rows, in bytes, exact.
 *
 * Four neighbouring results of three taps a, b, c take 6 products of transformed inputs and weights instead of 12.
 * Codes of up to 25 grow by a factor of at most 10, weights of up to 18 by 7, so that both fit bytes; inputs are made
 * unsigned by an offset of their kind, which the first sums take back. The fractions of the usual transforms are left
 * to the last one, whose divisions are exact. Sums over channels and rows of the window are those of the plain kernel.
 *
 * Transformed inputs are u8 [row][block of four results][kind][channel]; packed weights s8 [32 channels][kind][row of
 * the window][step][channel][4], behind them the first sums, i32 [32 channels][kind][channel]. */
#ifdef QXR_EMULATE
#include "emulate_avx512.h"
#else
#include <immintrin.h>
#endif

#include <string.h>

#include "x86/avx2_loops.h"
#include "x86/avx512vnni.h"

enum {
    TAPS = 3,
    OUTPUTS = 4,                 /* neighbouring results of a row, made together: a block */
    INPUTS = OUTPUTS + TAPS - 1, /* columns under a block */
    ROWS = QXR_AVX512VNNI_ROWS,  /* blocks of a product */
    CHANNELS = QXR_AVX512VNNI_BLOCK,
    LANES = 16,
    UNIT = 4,
    VECTOR = 64,
    RUN = 64, /* channels whose weights are unpacked at once */
    LARGEST_INPUT = 25,
    LARGEST_WEIGHT = 18,
    GROWTH = 32,           /* bound of what is divided, and of its parts, in results */
    FEWEST_CHANNELS = 32,  /* of the inputs: with fewer the transforms take what the products save */
    FEWEST_OUTPUTS = 16,
    ROW_BYTES = 32 << 10,  /* transformed rows that are made at a time */
    MOST_WEIGHTS = 2 << 20, /* twice those of the plain kernel; a core's cache has to hold them */
    INVERSE_OF_3 = (int32_t)0xAAAAAAAB
};

/* Sums of a block: FIRST and LAST belong to one result each, the others to several. */
enum { FIRST, M1, M2, M3, M4, LAST, KINDS };

/* Largest sum of what is subtracted from an input of the kind, in codes: added, the input is no longer negative. */
static const uint8_t offsets[KINDS] = {5, 8, 5, 3, 3, 5};

typedef struct layout {
    uint32_t blocks;            /* of a row */
    uint32_t steps;             /* of four channels */
    size_t kind, block, pitch;  /* bytes of a kind, of a block, of a row of blocks */
    size_t kind_weights, weights; /* bytes of a kind, of 32 channels */
    size_t sums, bytes;
} layout;

static layout plan(const qxr_conv *conv)
{
    const uint32_t channels = conv->in->extent[0], outputs = (conv->out->extent[0] - 1u) / CHANNELS + 1u;
    layout l;
    l.blocks = (conv->out->extent[2] - 1u) / OUTPUTS + 1u;
    l.steps = (channels - 1u) / UNIT + 1u;
    l.kind = qxr_round_up(channels, VECTOR);
    l.block = KINDS * l.kind;
    l.pitch = l.blocks * l.block;
    l.kind_weights = (size_t)conv->op->window[0] * l.steps * UNIT * CHANNELS;
    l.weights = KINDS * l.kind_weights;
    l.sums = outputs * l.weights;
    l.bytes = l.sums + (size_t)outputs * KINDS * CHANNELS * sizeof(int32_t);
    return l;
}

static uint32_t chunk_rows(const qxr_conv *conv, const layout *l)
{
    return qxr_rows_that_fit(conv, ROW_BYTES, l->pitch);
}

static size_t packed_size(const qxr_conv *conv) { return plan(conv).bytes; }

/* A pixel of padding, and the rows. */
static size_t scratch_size(const qxr_conv *conv)
{
    const layout l = plan(conv);
    return l.kind + qxr_input_rows(conv, chunk_rows(conv, &l)) * l.pitch;
}

static int suits(const qxr_conv *conv)
{
    const qxr_op *op = conv->op;
    const layout l = plan(conv);
    return qxr_storage(conv->in) == QXR_U8 && op->groups == 1u && op->window[1] == TAPS && op->stride[1] == 1u &&
           op->dilation[1] == 1u && conv->in->extent[0] >= FEWEST_CHANNELS && conv->out->extent[0] >= FEWEST_OUTPUTS &&
           conv->out->extent[2] >= 3u * l.blocks && conv->input_peak <= LARGEST_INPUT &&
           conv->weight_peak <= LARGEST_WEIGHT && l.bytes <= MOST_WEIGHTS && scratch_size(conv) <= QXR_ROWS_LIMIT &&
           (uint64_t)GROWTH * conv->row * conv->input_peak * conv->weight_peak <= INT32_MAX;
}

/* ---- Weights ---- */

/* G of F(4, 3), each row times what makes it integers. */
static void transform_weights(int32_t a, int32_t b, int32_t c, int32_t kinds[KINDS])
{
    kinds[FIRST] = a;
    kinds[M1] = a + b + c;
    kinds[M2] = a - b + c;
    kinds[M3] = a + 2 * b + 4 * c;
    kinds[M4] = a - 2 * b + 4 * c;
    kinds[LAST] = c;
}

/* Row v of the window of channel o, into its lane of `to`. */
static void pack_row(const qxr_conv *conv, const layout *l, uint32_t o, uint32_t v, uint8_t *to, int32_t sums[KINDS])
{
    const uint32_t channels = conv->in->extent[0];
    int32_t values[TAPS][RUN], kinds[KINDS];
    for (uint32_t first = 0; first < channels; first += RUN) {
        const uint32_t count = qxr_min(RUN, channels - first);
        for (uint32_t tap = 0; tap < TAPS; tap++)
            qxr_weight_values(&conv->weights, o, (uint64_t)(v * TAPS + tap) * channels + first, count, values[tap]);
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t step = v * l->steps + (first + i) / UNIT;
            transform_weights(values[0][i], values[1][i], values[2][i], kinds);
            for (uint32_t k = 0; k < KINDS; k++) {
                to[k * l->kind_weights + (size_t)step * UNIT * CHANNELS + i % UNIT] = (uint8_t)kinds[k];
                sums[k] += kinds[k];
            }
        }
    }
}

/* Inputs are codes, values `base` more: of the kinds, M1 alone sees the difference, as its factors add up to -6. */
static void pack(const qxr_conv *conv, uint8_t *packed)
{
    const layout l = plan(conv);
    memset(packed, 0, l.bytes);
    for (uint32_t o = 0; o < conv->out->extent[0]; o++) {
        const uint32_t block = o / CHANNELS, lane = o % CHANNELS;
        int32_t *init = (int32_t *)(void *)(packed + l.sums) + (size_t)block * KINDS * CHANNELS + lane;
        int32_t sums[KINDS] = {0};
        for (uint32_t v = 0; v < conv->op->window[0]; v++)
            pack_row(conv, &l, o, v, packed + block * l.weights + (size_t)lane * UNIT, sums);
        for (uint32_t k = 0; k < KINDS; k++)
            init[k * CHANNELS] =
                -sums[k] * ((int32_t)(offsets[k] * conv->input_peak) + (k == M1 ? 6 * conv->base : 0));
    }
}

/* ---- Inputs ---- */

INLINE __m512i load(const uint8_t *at) { return _mm512_loadu_si512(at); }
INLINE void store(uint8_t *at, __m512i x) { _mm512_storeu_si512(at, x); }
INLINE __m512i plus(__m512i a, __m512i b) { return _mm512_add_epi8(a, b); }
INLINE __m512i minus(__m512i a, __m512i b) { return _mm512_sub_epi8(a, b); }
/* No byte carries into its neighbour. */
INLINE __m512i four_times(__m512i x) { return _mm512_slli_epi16(x, 2); }

/* B d of F(4, 3) and the offsets, all channels of a block. What lies behind the last channel may be anything. */
static void transform_block(const layout *l, const uint8_t *const d[INPUTS], uint32_t peak, uint8_t *to)
{
    const __m512i by_5 = _mm512_set1_epi8((char)(5u * peak)), by_8 = _mm512_set1_epi8((char)(8u * peak));
    const __m512i by_3 = _mm512_set1_epi8((char)(3u * peak));
    for (size_t c = 0; c < l->kind; c += VECTOR, to += VECTOR) {
        const __m512i d0 = load(d[0] + c), d1 = load(d[1] + c), d2 = load(d[2] + c);
        const __m512i d3 = load(d[3] + c), d4 = load(d[4] + c), d5 = load(d[5] + c);
        const __m512i q1 = four_times(d1), q2 = four_times(d2), d42 = minus(d4, d2), d31 = minus(d3, d1);
        const __m512i even = plus(d42, by_3), odd = plus(d31, d31);
        store(to + FIRST * l->kind, plus(minus(four_times(d0), q2), plus(d42, by_5)));
        store(to + M1 * l->kind, plus(minus(plus(d3, d4), plus(q1, q2)), by_8));
        store(to + M2 * l->kind, plus(minus(q1, q2), plus(minus(d4, d3), by_5)));
        store(to + M3 * l->kind, plus(even, odd));
        store(to + M4 * l->kind, minus(even, odd));
        store(to + LAST * l->kind, plus(minus(q1, four_times(d3)), plus(minus(d5, d3), by_5)));
    }
}

/* The transformed inputs of some rows of the result. */
static const uint8_t *transform_rows(const qxr_conv *conv, const layout *l, const qxr_conv_buffers *buffers,
                                     uint32_t first, uint32_t rows)
{
    const size_t channels = conv->in->extent[0], width = conv->in->extent[2];
    uint8_t *padding = buffers->scratch, *to = padding + l->kind;
    memset(padding, -conv->base, l->kind);
    for (uint32_t r = 0; r < qxr_input_rows(conv, rows); r++) {
        const uint32_t row = first * conv->op->stride[0] + r - conv->op->padding[0];
        for (uint32_t b = 0; b < l->blocks; b++, to += l->block) {
            const uint8_t *d[INPUTS];
            for (uint32_t i = 0; i < INPUTS; i++) {
                const uint32_t column = b * OUTPUTS + i - conv->op->padding[2];
                const int inside = row < conv->in->extent[1] && column < width;
                d[i] = inside ? buffers->input + (row * width + column) * channels : padding;
            }
            transform_block(l, d, conv->input_peak, to);
        }
    }
    return padding + l->kind;
}

/* ---- Results ---- */

/* Where results go: one of the two, from the tile's first pixel and channel on. */
typedef struct target {
    int32_t *y;
    int16_t *words;
    size_t stride;
} target;

/* Those of a block and sixteen channels that a tile holds. */
typedef struct part {
    uint32_t begin, end;  /* results */
    uint32_t first, last; /* lanes */
    ptrdiff_t at;         /* of result 0 and lane 0, or where they would be */
} part;

INLINE __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
INLINE __m512i sub(__m512i a, __m512i b) { return _mm512_sub_epi32(a, b); }

/* x / (3 * 2^bits), where that is an integer. */
INLINE __m512i divided(__m512i x, unsigned bits)
{
    return _mm512_mullo_epi32(_mm512_srai_epi32(x, bits), _mm512_set1_epi32(INVERSE_OF_3));
}

/* A^T of F(4, 3), with the factors that G has left out. */
INLINE void combine(const int32_t *sums, __m512i y[OUTPUTS])
{
    enum { NEXT = ROWS * CHANNELS };
    const __m512i m1 = _mm512_loadu_si512(sums + M1 * NEXT), m2 = _mm512_loadu_si512(sums + M2 * NEXT);
    const __m512i m3 = _mm512_loadu_si512(sums + M3 * NEXT), m4 = _mm512_loadu_si512(sums + M4 * NEXT);
    const __m512i first = _mm512_loadu_si512(sums + FIRST * NEXT), last = _mm512_loadu_si512(sums + LAST * NEXT);
    const __m512i even = add(m1, m2), odd = sub(m1, m2), far = add(m3, m4), skew = sub(m3, m4);
    const __m512i six = add(add(first, first), _mm512_slli_epi32(first, 2));
    y[0] = divided(add(six, sub(far, _mm512_slli_epi32(even, 2))), 3);
    y[1] = divided(sub(skew, add(odd, odd)), 2);
    y[2] = divided(sub(far, even), 1);
    y[3] = add(last, divided(sub(add(skew, skew), odd), 1));
}

/* Sixteen channels of a result. */
INLINE void store_result(const target *to, ptrdiff_t at, __m512i y)
{
    if (to->words)
        _mm256_storeu_si256((__m256i *)(void *)(to->words + at), _mm512_cvtsepi32_epi16(y));
    else
        _mm512_storeu_si512(to->y + at, y);
}

/* Some results of a block, or some lanes of them. */
static __attribute__((noinline)) void write_some(const __m512i *y, const part *p, const target *to)
{
    for (uint32_t i = p->begin; i < p->end; i++) {
        const ptrdiff_t at = p->at + (ptrdiff_t)(i * to->stride);
        int32_t lanes[LANES];
        if (p->first == 0u && p->last == LANES) {
            store_result(to, at, y[i]);
            continue;
        }
        _mm512_storeu_si512(lanes, y[i]);
        for (uint32_t c = p->first; c < p->last; c++)
            if (to->words)
                to->words[at + c] = (int16_t)lanes[c];
            else
                to->y[at + c] = lanes[c];
    }
}

INLINE void write_part(const int32_t *sums, const part *p, const target *to)
{
    __m512i y[OUTPUTS];
    combine(sums, y);
    if (p->begin == 0u && p->end == OUTPUTS && p->first == 0u && p->last == LANES)
        UNROLL_ALL for (uint32_t i = 0; i < OUTPUTS; i++)
            store_result(to, p->at + (ptrdiff_t)(i * to->stride), y[i]);
    else
        write_some(y, p, to);
}

/* ---- Tiles ---- */

/* Some pixels of a tile whose transformed rows are at hand; the first is one of the first row. */
typedef struct chunk {
    const uint8_t *rows;
    uint32_t column, pixels, done; /* `done` pixels of the tile lie before them */
    uint32_t blocks;               /* that hold them */
} chunk;

/* A block of a chunk. */
typedef struct place {
    uint32_t row, block;
} place;

static inline void move_on(const layout *l, place *at)
{
    if (++at->block == l->blocks) {
        at->block = 0;
        at->row++;
    }
}

static void write_block(const qxr_conv *conv, const int32_t *sums, const chunk *from, const place *at, uint32_t o,
                        const qxr_tile *tile, const target *to)
{
    const uint32_t width = conv->out->extent[2], column = at->block * OUTPUTS, pixel = at->row * width + column;
    const uint32_t end = tile->channel + tile->channels;
    part p;
    p.begin = from->column > pixel ? from->column - pixel : 0u;
    p.end = qxr_min(qxr_min(OUTPUTS, width - column), from->column + from->pixels - pixel);
    p.at = ((ptrdiff_t)pixel - from->column + from->done) * (ptrdiff_t)to->stride + (ptrdiff_t)o - tile->channel;
    for (uint32_t lane = o; lane < o + CHANNELS; lane += LANES, sums += LANES, p.at += LANES) {
        p.first = tile->channel > lane ? tile->channel - lane : 0u;
        p.last = end > lane ? qxr_min(end - lane, LANES) : 0u;
        if (p.first < p.last)
            write_part(sums, &p, to);
    }
}

/* All blocks with 32 channels, from channel o on. */
static void multiply(const qxr_conv *conv, const layout *l, const uint8_t *packed, const chunk *from, uint32_t o,
                     const qxr_tile *tile, const target *to)
{
    const int32_t *init = (const int32_t *)(const void *)(packed + l->sums) + (size_t)o * KINDS;
    const uint8_t *weights = packed + o / CHANNELS * l->weights;
    place next = {0, from->column / OUTPUTS};
    qxr_product p;
    p.outer = conv->op->window[0];
    p.outer_step = conv->op->dilation[0] * l->pitch;
    p.inner = 1;
    p.inner_step = 0;
    p.steps = l->steps;
    p.init_stride = 0;
    p.out_stride = CHANNELS;
    for (uint32_t n = 0; n < from->blocks; n += ROWS) {
        int32_t sums[KINDS * ROWS * CHANNELS];
        place written = next;
        p.count = qxr_min(ROWS, from->blocks - n);
        for (uint32_t r = 0; r < ROWS; r++) {
            const size_t at = next.row * conv->op->stride[0] * l->pitch + next.block * l->block;
            p.row[r] = r < p.count ? from->rows + at : p.row[0];
            if (r < p.count)
                move_on(l, &next);
        }
        for (uint32_t k = 0; k < KINDS; k++) {
            p.weights = weights + k * l->kind_weights;
            p.init = init + k * CHANNELS;
            p.out = sums + k * ROWS * CHANNELS;
            qxr_avx512vnni_product(&p);
            for (uint32_t r = 0; r < ROWS; r++)
                p.row[r] += l->kind;
        }
        for (uint32_t r = 0; r < p.count; r++, move_on(l, &written))
            write_block(conv, sums + r * CHANNELS, from, &written, o, tile, to);
    }
}

static void make_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, const target *to)
{
    const layout l = plan(conv);
    const uint32_t width = conv->out->extent[2], at_a_time = chunk_rows(conv, &l);
    for (uint32_t done = 0; done < tile->pixels;) {
        const uint32_t pixel = tile->pixel + done, row = pixel / width;
        const uint32_t pixels = qxr_min(tile->pixels - done, (row + at_a_time) * width - pixel);
        const uint32_t last = pixel + pixels - 1u;
        const uint32_t last_block = (last / width - row) * l.blocks + last % width / OUTPUTS;
        chunk from = {NULL, pixel % width, pixels, done, 0};
        from.rows = transform_rows(conv, &l, buffers, row, last / width - row + 1u);
        from.blocks = last_block - from.column / OUTPUTS + 1u;
        for (uint32_t o = tile->channel / CHANNELS * CHANNELS; o < tile->channel + tile->channels; o += CHANNELS)
            multiply(conv, &l, buffers->packed, &from, o, tile, to);
        done += pixels;
    }
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const target to = {y, NULL, tile->channels};
    make_tile(conv, buffers, tile, &to);
}

static void words_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y)
{
    const target to = {NULL, y.at, y.pitch};
    make_tile(conv, buffers, tile, &to);
}

const qxr_conv_kernel qxr_avx512vnni_winograd = {"avx512vnni winograd", suits,   packed_size, pack,
                                                 scratch_size,          tile_of, words_of,    0};
