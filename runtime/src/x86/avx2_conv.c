/* Products of rows and packed weights with AVX2. */
#include <immintrin.h>

#include "x86/avx2.h"

/* A tile of 4 pixels x 16 channels: 8 accumulators, so that weights, inputs and products stay in the 16 registers. */
typedef struct sums {
    __m256i r0[2], r1[2], r2[2], r3[2];
} sums;

static inline __m256i spread(const uint8_t *at)
{
    int32_t four;
    __builtin_memcpy(&four, at, sizeof four);
    return _mm256_set1_epi32(four);
}

static inline void read_row(const int32_t *init, __m256i *row)
{
    row[0] = _mm256_loadu_si256((const __m256i *)(const void *)init);
    row[1] = _mm256_loadu_si256((const __m256i *)(const void *)(init + 8));
}

static inline void write_row(int32_t *out, const __m256i *row)
{
    _mm256_storeu_si256((__m256i *)(void *)out, row[0]);
    _mm256_storeu_si256((__m256i *)(void *)(out + 8), row[1]);
}

static inline sums read_init(const qxr_product *p)
{
    sums s;
    read_row(p->init, s.r0);
    read_row(p->init + p->init_stride, s.r1);
    read_row(p->init + 2u * p->init_stride, s.r2);
    read_row(p->init + 3u * p->init_stride, s.r3);
    return s;
}

static inline void write_out(const qxr_product *p, const sums *s)
{
    write_row(p->out, s->r0);
    write_row(p->out + p->out_stride, s->r1);
    write_row(p->out + 2u * p->out_stride, s->r2);
    write_row(p->out + 3u * p->out_stride, s->r3);
}

/* How products are summed: bytes in 16 bits, as many steps as are proven to fit; bytes in 32 bits; words in 32 bits. */
enum { NARROW, WIDENING, WORDS };

#define INLINE static inline __attribute__((always_inline)) /* `how` is a constant in each place of use */

INLINE __m256i accumulate(int how, __m256i sum, __m256i x, __m256i w)
{
    if (how == WORDS)
        return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
    x = _mm256_maddubs_epi16(x, w);
    if (how == NARROW)
        return _mm256_add_epi16(sum, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, _mm256_set1_epi16(1)));
}

/* One step of 16 channels for one row: four bytes, or two words, times their weights. */
INLINE void add_row(int how, __m256i *row, const uint8_t *at, __m256i w0, __m256i w1)
{
    const __m256i x = spread(at);
    row[0] = accumulate(how, row[0], x, w0);
    row[1] = accumulate(how, row[1], x, w1);
}

INLINE void add_step(int how, sums *s, const uint8_t *const *row, size_t at, const __m256i *w)
{
    const __m256i w0 = _mm256_load_si256(w), w1 = _mm256_load_si256(w + 1);
    add_row(how, s->r0, row[0] + at, w0, w1);
    add_row(how, s->r1, row[1] + at, w0, w1);
    add_row(how, s->r2, row[2] + at, w0, w1);
    add_row(how, s->r3, row[3] + at, w0, w1);
}

/* Some steps of a segment. One a turn: with two, compilers join the sums of both and run out of registers. */
INLINE void add_steps(int how, sums *s, const uint8_t *const *row, const __m256i *w, uint32_t count)
{
    const __m256i *end = w + 2u * count;
    for (size_t at = 0; w != end; w += 2, at += 4u)
        add_step(how, s, row, at, w);
}

INLINE void find_rows(const qxr_product *p, uint32_t outer, uint32_t inner, const uint8_t **row)
{
    const size_t segment = outer * p->outer_step + inner * p->inner_step;
    for (uint32_t r = 0; r < 4u; r++)
        row[r] = p->row[r] + segment;
}

INLINE void add_all(int how, const qxr_product *p)
{
    const __m256i *w = (const __m256i *)(const void *)p->weights;
    sums s = read_init(p);
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++, w += 2u * p->steps) {
            const uint8_t *row[4];
            find_rows(p, outer, inner, row);
            add_steps(how, &s, row, w, p->steps);
        }
    write_out(p, &s);
}

/* A single pixel, as linear layers have it: a row of its own, not four of which three are thrown away. */
INLINE void add_one(int how, const qxr_product *p)
{
    const __m256i *w = (const __m256i *)(const void *)p->weights;
    __m256i sum[2];
    read_row(p->init, sum);
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const uint8_t *row = p->row[0] + outer * p->outer_step + inner * p->inner_step;
            for (const __m256i *end = w + 2u * p->steps; w != end; w += 2, row += 4)
                add_row(how, sum, row, _mm256_load_si256(w), _mm256_load_si256(w + 1));
        }
    write_row(p->out, sum);
}

static void product_i16(const qxr_product *p)
{
    if (p->count == 1u)
        add_one(WORDS, p);
    else
        add_all(WORDS, p);
}

INLINE void widen_row(const int32_t *from, int32_t *out, __m256i *row)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[2];
    read_row(from, sum);
    sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(row[0], ones));
    sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(row[1], ones));
    write_row(out, sum);
    row[0] = row[1] = _mm256_setzero_si256();
}

/* Adds sums of 16 bits to those at `from`, into the output. */
INLINE void widen_all(const qxr_product *p, const int32_t *from, size_t stride, sums *s)
{
    widen_row(from, p->out, s->r0);
    widen_row(from + stride, p->out + p->out_stride, s->r1);
    widen_row(from + 2u * stride, p->out + 2u * p->out_stride, s->r2);
    widen_row(from + 3u * stride, p->out + 3u * p->out_stride, s->r3);
}

/* Sums of `widen_after` steps fit 16 bits; then they join those of 32 bits, which wait in memory. */
static void add_narrow(const qxr_product *p)
{
    const __m256i *w = (const __m256i *)(const void *)p->weights;
    const int32_t *from = p->init;
    size_t stride = p->init_stride;
    uint32_t left = p->widen_after;
    sums s;
    s.r0[0] = s.r0[1] = s.r1[0] = s.r1[1] = s.r2[0] = s.r2[1] = s.r3[0] = s.r3[1] = _mm256_setzero_si256();
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const uint8_t *row[4];
            find_rows(p, outer, inner, row);
            for (uint32_t done = 0; done < p->steps;) {
                const uint32_t count = qxr_min(left, p->steps - done);
                add_steps(NARROW, &s, row, w, count);
                w += 2u * count;
                done += count;
                left -= count;
                for (uint32_t r = 0; r < 4u; r++)
                    row[r] += 4u * count;
                if (left)
                    continue;
                widen_all(p, from, stride, &s);
                from = p->out;
                stride = p->out_stride;
                left = p->widen_after;
            }
        }
    widen_all(p, from, stride, &s);
}

enum { FEW_STEPS = 3 }; /* up to here, widening at once costs less */

static void product_u8(const qxr_product *p)
{
    if (p->count == 1u)
        add_one(WIDENING, p);
    else if (p->widen_after <= FEW_STEPS)
        add_all(WIDENING, p);
    else
        add_narrow(p);
}

static const qxr_row_kernel u8_rows = {4, 1, 4, 16, product_u8, 0, 0}, i16_rows = {2, 2, 4, 16, product_i16, 0, 0};

/* Groups of fewer channels would leave most of a block of channels empty. */
enum { FEWEST_CHANNELS = 3 };

static int u8_suits(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= 255u && qxr_weight_planes(conv, &u8_rows) == 1u &&
           2u * conv->input_peak * conv->weight_peak <= 32767u && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, &u8_rows);
}

static size_t u8_packed_size(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &u8_rows); }
static void u8_pack(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &u8_rows, packed); }
static size_t u8_scratch(const qxr_conv *conv) { return qxr_rows_scratch(conv, &u8_rows); }
static void u8_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_rows_tile(conv, &u8_rows, buffers, tile, y);
}

const qxr_conv_kernel qxr_avx2_u8 = {"avx2 u8", u8_suits, u8_packed_size, u8_pack, u8_scratch, u8_tile, NULL, 0};

static int i16_suits(const qxr_conv *conv)
{
    return (qxr_storage(conv->in) != QXR_U8 || conv->input_peak <= 255u) && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, &i16_rows);
}

static size_t i16_packed_size(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &i16_rows); }
static void i16_pack(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &i16_rows, packed); }
static size_t i16_scratch(const qxr_conv *conv) { return qxr_rows_scratch(conv, &i16_rows); }
static void i16_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_rows_tile(conv, &i16_rows, buffers, tile, y);
}

const qxr_conv_kernel qxr_avx2_i16 = {"avx2 i16", i16_suits, i16_packed_size, i16_pack, i16_scratch, i16_tile, NULL, 0};
