/* The table look-up for inputs of one bit and weights of one, in layers of up to 64 channels. There what goes before
 * and after the products counts as much as they do, so this has its own way for all of it:
 *
 * - Eight inputs make the byte that names 32 bytes of a table: the entries of two quads. These are copied side by
 *   side, and a product reads them in place.
 * - Weights -v and v have entries that are the sums of v's sign times the input, and 4, so that bytes stay without
 *   sign; then no sum over the window is needed.
 * - Pixels of a product lie in one row, at equal distances. What is behind the end of a row is computed and dropped.
 * - Results are words. */
#include "x86/avx2_table_finish.h"
#include "x86/avx2_words.h"

enum {
    PAIR_BYTES = 2 * ENTRY_BYTES,
    MOST_VECTORS = 2,
    MOST_SEGMENT = 63,      /* steps whose sums fit 8 bits: entries are at most 4 */
    MOST_SYMMETRIC = 31,    /* at most 8; a row of the window may be two halves */
    FEW_ROWS = 8,           /* rows of the result that are worth making their inputs */
    MOST_SCRATCH = 96 << 10
};

/* Bits of a pattern. */
#define BIT(x, i) ((x) >> (i) & 1)
#define COUNT(x) (BIT(x, 0) + BIT(x, 1) + BIT(x, 2) + BIT(x, 3))
#define ONE_SIGN(x, w) COUNT((x) & (w))
#define BOTH_SIGNS(x, w) (2 * COUNT((x) & (w)) - COUNT(x) + QUAD)
#define FOUR(f, x, w) f(x, w), f(x, (w) + 1), f(x, (w) + 2), f(x, (w) + 3)
#define ENTRY(f, x) FOUR(f, x, 0), FOUR(f, x, 4), FOUR(f, x, 8), FOUR(f, x, 12)
#define PAIR(f, x) {ENTRY(f, (x) & 15), ENTRY(f, (x) >> 4)}
#define FOUR_PAIRS(f, x) PAIR(f, x), PAIR(f, (x) + 1), PAIR(f, (x) + 2), PAIR(f, (x) + 3)
#define SIXTEEN_PAIRS(f, x) FOUR_PAIRS(f, x), FOUR_PAIRS(f, (x) + 4), FOUR_PAIRS(f, (x) + 8), FOUR_PAIRS(f, (x) + 12)
#define SIXTY_FOUR_PAIRS(f, x)                                                              \
    SIXTEEN_PAIRS(f, x), SIXTEEN_PAIRS(f, (x) + 16), SIXTEEN_PAIRS(f, (x) + 32), SIXTEEN_PAIRS(f, (x) + 48)
#define ALL_PAIRS(f) SIXTY_FOUR_PAIRS(f, 0), SIXTY_FOUR_PAIRS(f, 64), SIXTY_FOUR_PAIRS(f, 128), SIXTY_FOUR_PAIRS(f, 192)

static const uint8_t pairs[2][256][PAIR_BYTES] __attribute__((aligned(64))) = {{ALL_PAIRS(ONE_SIGN)},
                                                                              {ALL_PAIRS(BOTH_SIGNS)}};

/* ---- Which layers ---- */

int qxr_table_bits_suit(const qxr_conv *conv, const qxr_table_layout *l)
{
    const uint32_t channels = conv->out->extent[0];
    qxr_table_layout rows = *l;
    if (l->code.planes != 1u || l->vectors > MOST_VECTORS || conv->input_peak != 1u || conv->in->extent[0] % 8u ||
        channels % (l->narrow ? NARROW : LANES) || l->inner != 1u || l->steps > MOST_SEGMENT ||
        !qxr_fits_words(conv->out))
        return 0;
    rows.bits = 1;
    rows.quad_bytes = ENTRY_BYTES;
    return qxr_table_chunk(conv, &rows) >= qxr_min(FEW_ROWS, conv->out->extent[1]) &&
           qxr_table_scratch(conv, &rows) <= MOST_SCRATCH;
}

int qxr_table_is_symmetric(const qxr_table_layout *l)
{
    return l->code.delta[0] % 2 == 0 && l->code.lowest == -l->code.delta[0] / 2 &&
           (l->steps <= MOST_SYMMETRIC || (l->steps % 2u == 0u && l->steps / 2u <= MOST_SYMMETRIC));
}

/* ---- Inputs ---- */

/* `at`: 32 times the byte, and bits that do not count. */
static inline void copy_pair(const uint8_t *table, uint32_t at, uint8_t *to)
{
    const void *from = table + (at & 255u * PAIR_BYTES);
    _mm256_store_si256((__m256i *)(void *)to, _mm256_load_si256((const __m256i *)from));
}

void qxr_table_bits_entries(const qxr_table_layout *l, const uint8_t *input, size_t count, uint8_t *to)
{
    const uint8_t *table = pairs[l->symmetric][0];
    size_t i = 0;
    for (; i + 32u <= count; i += 32u, to += 4 * PAIR_BYTES) {
        const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(input + i));
        const uint32_t bits = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(x, 7));
        copy_pair(table, bits << 5, to);
        copy_pair(table, bits >> 3, to + PAIR_BYTES);
        copy_pair(table, bits >> 11, to + 2 * PAIR_BYTES);
        copy_pair(table, bits >> 19, to + 3 * PAIR_BYTES);
    }
    for (; i < count; i += 8u, to += PAIR_BYTES) {
        const __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)(input + i));
        copy_pair(table, (uint32_t)_mm_movemask_epi8(_mm_slli_epi16(x, 7)) << 5, to);
    }
}

void qxr_table_bits_zeros(const qxr_conv *conv, const qxr_table_layout *l, size_t pixels, uint8_t *to)
{
    const __m256i *entries = (const __m256i *)(const void *)pairs[l->symmetric][conv->base ? 255 : 0];
    const __m256i zero = _mm256_load_si256(entries);
    const size_t count = pixels * l->quads * ENTRY_BYTES;
    UNROLL_4 for (size_t i = 0; i < count; i += PAIR_BYTES)
        _mm256_store_si256((__m256i *)(void *)(to + i), zero);
}

/* ---- Products ---- */

typedef struct product {
    const uint8_t *at;          /* entries under the window of the first pixel */
    size_t step, row_step;      /* bytes to the next pixel, and to the next row of the window */
    const __m256i *weights;
    uint32_t rows, steps;       /* of the window; of one of its rows */
    uint32_t parts;             /* of a row of the window, 1 or 2 */
    uint32_t widen_after;       /* parts */
    __m256i sums[MOST_PIXELS][MOST_VECTORS][2]; /* 16 bits: even lanes, odd lanes */
    __m256i delta, add[MOST_VECTORS][2];        /* in 16 bits: results are delta sum + add + rest */
    int unit;                   /* delta is 1, and there is no rest */
    const uint32_t *rest;       /* of the first pixel: lowest weight times the sum of the window; or null */
    int16_t *y;                 /* result of the first pixel */
    size_t stride;              /* elements to the next */
} product;

INLINE void widen(product *p, __m256i sum[MOST_PIXELS][MOST_VECTORS], int pixels, int width, int first)
{
    UNROLL_ALL for (int r = 0; r < pixels; r++)
        UNROLL_ALL for (int v = 0; v < width; v++) {
            const __m256i even = _mm256_and_si256(sum[r][v], _mm256_set1_epi16(0xFF));
            const __m256i odd = _mm256_srli_epi16(sum[r][v], 8);
            __m256i *to = p->sums[r][v];
            to[0] = first ? even : _mm256_add_epi16(to[0], even);
            to[1] = first ? odd : _mm256_add_epi16(to[1], odd);
            sum[r][v] = _mm256_setzero_si256();
        }
}

/* Results; `first`: nothing has been widened before. */
INLINE void finish(product *p, __m256i sum[MOST_PIXELS][MOST_VECTORS], int pixels, int width, int paired, int first,
                   int unit)
{
    int16_t *y = p->y;
    UNROLL_ALL for (int r = 0; r < pixels; r++, y += p->stride) {
        const __m256i rest = !unit && p->rest ? _mm256_set1_epi16((int16_t)p->rest[r]) : _mm256_setzero_si256();
        UNROLL_ALL for (int v = 0; v < width; v++) {
            __m256i a = _mm256_and_si256(sum[r][v], _mm256_set1_epi16(0xFF)), b = _mm256_srli_epi16(sum[r][v], 8);
            if (!first) {
                a = _mm256_add_epi16(a, p->sums[r][v][0]);
                b = _mm256_add_epi16(b, p->sums[r][v][1]);
            }
            if (paired)
                a = _mm256_add_epi16(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
            a = unit ? a : _mm256_add_epi16(_mm256_mullo_epi16(a, p->delta), rest);
            a = paired ? a : _mm256_permute4x64_epi64(a, 0xD8);
            store_words(y + v * LANES, _mm256_add_epi16(a, p->add[v][0]));
            if (paired)
                continue;
            b = unit ? b : _mm256_add_epi16(_mm256_mullo_epi16(b, p->delta), rest);
            store_words(y + v * LANES + LANES / 2, _mm256_add_epi16(_mm256_permute4x64_epi64(b, 0xD8), p->add[v][1]));
        }
    }
}

/* `paired`: a vector holds two steps of 16 channels, which have entries of their own. */
INLINE __m256i load_entry(const uint8_t *at, int paired)
{
    const void *from = at;
    return paired ? _mm256_loadu_si256((const __m256i *)from)
                  : _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)from));
}

/* One row of the window, step by step. */
INLINE void add_steps(__m256i sum[MOST_PIXELS][MOST_VECTORS], const uint8_t *at, size_t step, const __m256i *w,
                      uint32_t steps, int pixels, int width, int paired)
{
    for (uint32_t k = 0; k < steps; k++, at += paired ? PAIR_BYTES : ENTRY_BYTES, w += width) {
        __m256i pattern[MOST_VECTORS];
        UNROLL_ALL for (int v = 0; v < width; v++) {
            pattern[v] = _mm256_load_si256(w + v);
            __asm__("" : "+x"(pattern[v])); /* else it is loaded once for each pixel */
        }
        UNROLL_ALL for (int r = 0; r < pixels; r++) {
            const __m256i entry = load_entry(at + (size_t)r * step, paired);
            UNROLL_ALL for (int v = 0; v < width; v++)
                sum[r][v] = _mm256_add_epi8(sum[r][v], _mm256_shuffle_epi8(entry, pattern[v]));
        }
        __asm__("" : "+r"(at)); /* else entries that a later step needs again are kept, on the stack */
    }
}

/* The same for windows three wide whose pixels are neighbours: an entry serves up to three of them. The first `count`
 * bytes of each pixel. */
INLINE void slide(__m256i sum[MOST_PIXELS][MOST_VECTORS], const uint8_t *at, size_t pixel, const __m256i *w,
                  size_t count, int pixels, int width, int paired)
{
    const size_t bytes = paired ? PAIR_BYTES : ENTRY_BYTES;
    for (size_t q = 0; q < count; q += bytes, w += width)
        UNROLL_ALL for (int j = 0; j < pixels + 2; j++) {
            const __m256i entry = load_entry(at + q + (size_t)j * pixel, paired);
            UNROLL_ALL for (int h = 0; h < 3; h++)
                UNROLL_ALL for (int v = 0; v < width; v++) {
                    if (j < h || j >= pixels + h)
                        continue;
                    const __m256i pattern = _mm256_load_si256(w + (size_t)h * (pixel / bytes) * (size_t)width + v);
                    sum[j - h][v] = _mm256_add_epi8(sum[j - h][v], _mm256_shuffle_epi8(entry, pattern));
                    __asm__("" : "+x"(sum[j - h][v]));
                }
        }
}

/* `slides`: step is that of neighbours, and the window three wide. */
INLINE void multiply(product *p, int pixels, int width, size_t step, int paired, int slides)
{
    __m256i sum[MOST_PIXELS][MOST_VECTORS];
    const __m256i *w = p->weights;
    const uint8_t *row = p->at;
    const uint32_t steps = p->steps;
    const uint32_t parts = p->parts, some = steps / parts; /* steps of a part */
    uint32_t left = p->widen_after;
    int first = 1;
    UNROLL_ALL for (int r = 0; r < pixels; r++)
        UNROLL_ALL for (int v = 0; v < width; v++)
            sum[r][v] = _mm256_setzero_si256();
    for (uint32_t i = 0; i < p->rows * parts; i++) {
        const size_t half = i % parts, bytes = paired ? PAIR_BYTES : ENTRY_BYTES;
        /* A half has half of each pixel, or of the steps. */
        const size_t before = half * (slides ? step / 2u : some * bytes);
        const __m256i *weights = w + before / bytes * (size_t)width;
        if (slides && parts == 1u)
            slide(sum, row, step, w, step, pixels, width, paired);
        else if (slides)
            slide(sum, row + before, step, weights, step / 2u, pixels, width, paired);
        else
            add_steps(sum, row + before, step, weights, some, pixels, width, paired);
        if (half + 1u == parts) {
            row += p->row_step;
            w += steps * (uint32_t)width;
        }
        if (--left > 0u || i + 1u == p->rows * parts)
            continue;
        if (first)
            widen(p, sum, pixels, width, 1);
        else
            widen(p, sum, pixels, width, 0);
        first = 0;
        left = p->widen_after;
    }
    if (first && !p->unit)
        widen(p, sum, pixels, width, 1);
    if (p->unit && first)
        finish(p, sum, pixels, width, paired, 1, 1);
    else if (p->unit)
        finish(p, sum, pixels, width, paired, 0, 1);
    else
        finish(p, sum, pixels, width, paired, 0, 0);
}

/* Functions of their own, so that the loops have the registers to themselves; the usual distances are constants. */
#define PRODUCT static __attribute__((noinline)) void
PRODUCT slide_8x1_paired(product *p) { multiply(p, 8, 1, 64, 1, 1); }
PRODUCT multiply_8x1_paired(product *p) { multiply(p, 8, 1, p->step, 1, 0); }
PRODUCT slide_8x1(product *p) { multiply(p, 8, 1, 128, 0, 1); }
PRODUCT multiply_8x1(product *p) { multiply(p, 8, 1, p->step, 0, 0); }
PRODUCT slide_4x2(product *p) { multiply(p, 4, 2, 256, 0, 1); }
PRODUCT multiply_4x2(product *p) { multiply(p, 4, 2, p->step, 0, 0); }

typedef void product_function(product *p);

/* Layers with as many channels before as behind are the usual ones. */
static product_function *choose(const qxr_conv *conv, const qxr_table_layout *l)
{
    const int slides = conv->op->stride[1] == 1u && conv->op->window[1] == 3u &&
                       conv->in->extent[0] == conv->out->extent[0];
    if (l->narrow)
        return slides ? slide_8x1_paired : multiply_8x1_paired;
    if (l->vectors == 1u)
        return slides ? slide_8x1 : multiply_8x1;
    return slides ? slide_4x2 : multiply_4x2;
}

/* ---- Tiles ---- */

static void read_terms(const qxr_table_layout *l, const int32_t *add, product *p)
{
    const int32_t delta = l->symmetric ? l->code.delta[0] / 2 : l->code.delta[0];
    p->delta = _mm256_set1_epi16((int16_t)delta);
    p->unit = l->symmetric && delta == 1;
    for (uint32_t v = 0; v < l->vectors; v++) {
        p->add[v][0] = low_halves(add + v * LANES);
        p->add[v][1] = l->narrow ? p->add[v][0] : low_halves(add + v * LANES + LANES / 2);
    }
}

/* Some pixels' results, of all channels, to their tile. */
static void copy_part(const int16_t *part, size_t channels, uint32_t count, const qxr_table_target *to, size_t at)
{
    for (uint32_t r = 0; r < count; r++)
        for (uint32_t c = to->first; c < to->last; c++) {
            const size_t i = at + r * to->stride + c - to->first;
            if (to->words)
                to->words[i] = part[r * channels + c];
            else
                to->y[i] = part[r * channels + c];
        }
}

/* Some pixels of one row of the result, pixel `done` of the tile and those behind it. */
static void multiply_row(product *p, product_function *multiply_some, const qxr_table_layout *l, uint32_t pixels,
                         const qxr_table_target *to, uint32_t done)
{
    const uint32_t most = l->vectors == 1u ? 8u : 4u;
    const size_t channels = l->narrow ? NARROW : l->vectors * LANES;
    const int whole = to->words && to->last - to->first == channels;
    size_t at = done * to->stride;
    for (uint32_t i = 0; i < pixels; i += most, p->at += most * p->step, at += most * to->stride) {
        int16_t part[MOST_PIXELS * LANES];
        const int direct = whole && i + most <= pixels;
        p->y = direct ? to->words + at : part;
        p->stride = direct ? to->stride : channels;
        multiply_some(p);
        if (!direct)
            copy_part(part, channels, qxr_min(most, pixels - i), to, at);
        if (p->rest)
            p->rest += most;
    }
}

void qxr_table_bits_tile(const qxr_conv *conv, const qxr_table_layout *l, const qxr_conv_buffers *buffers,
                         const qxr_tile *tile, int32_t *y, int16_t *words, size_t stride)
{
    const uint32_t width = conv->out->extent[2], rows_at_a_time = qxr_table_chunk(conv, l);
    const size_t pixel_bytes = (size_t)l->quads * l->quad_bytes;
    const qxr_table_target to = {y, words, tile->channel, tile->channel + tile->channels, stride};
    product p;
    product_function *multiply_some;
    memset(&p, 0, sizeof p);
    read_terms(l, (const int32_t *)(const void *)(buffers->packed + l->sums), &p);
    p.step = conv->op->stride[1] * pixel_bytes;
    p.weights = (const __m256i *)(const void *)(buffers->packed + QXR_PACK_HEAD);
    p.rows = l->outer;
    p.steps = l->steps;
    p.parts = l->symmetric && l->steps > MOST_SYMMETRIC ? 2u : 1u;
    p.widen_after = (l->symmetric ? MOST_SYMMETRIC : MOST_SEGMENT) / (l->steps / p.parts);
    multiply_some = choose(conv, l);
    for (uint32_t done = 0; done < tile->pixels;) {
        const uint32_t pixel = tile->pixel + done, first = pixel / width;
        const uint32_t pixels = qxr_min(tile->pixels - done, (first + rows_at_a_time) * width - pixel);
        const qxr_table_rows rows = qxr_table_inputs(conv, l, buffers, pixel, pixels);
        const uint32_t end = done + pixels;
        p.row_step = (size_t)conv->op->dilation[0] * rows.width * pixel_bytes;
        while (done < end) {
            const uint32_t row = (tile->pixel + done) / width, column = (tile->pixel + done) % width;
            const size_t below = (size_t)(row - first) * conv->op->stride[0] * rows.width * pixel_bytes;
            const uint32_t some = qxr_min(width - column, end - done);
            p.rest = l->symmetric ? NULL : rows.rest + (size_t)(row - first) * width + column;
            p.at = rows.quads + below + column * p.step;
            multiply_row(&p, multiply_some, l, some, &to, done);
            done += some;
        }
    }
}
