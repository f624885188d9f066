/* Products of rows and packed weights with AVX2. */
#include <immintrin.h>

#include "x86/rows.h"

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

/* The loops over segments and steps. `STEP(a0, a1, a2, a3, w0, w1)` sees four inputs (or two of 16 bits) of each row,
 * spread, and their weights. */
#define FOR_EACH_STEP(p, STEP)                                                                                    \
    do {                                                                                                          \
        const __m256i *w = (const __m256i *)(const void *)(p)->weights;                                           \
        for (uint32_t outer = 0; outer < (p)->outer; outer++)                                                     \
            for (uint32_t inner = 0; inner < (p)->inner; inner++) {                                               \
                const size_t segment = outer * (p)->outer_step + inner * (p)->inner_step;                         \
                const uint8_t *a0 = (p)->row[0] + segment, *a1 = (p)->row[1] + segment;                           \
                const uint8_t *a2 = (p)->row[2] + segment, *a3 = (p)->row[3] + segment;                           \
                for (uint32_t step = 0; step < (p)->steps; step++, w += 2) {                                      \
                    const __m256i w0 = _mm256_load_si256(w), w1 = _mm256_load_si256(w + 1);                       \
                    STEP(a0, a1, a2, a3, w0, w1);                                                                 \
                    a0 += 4, a1 += 4, a2 += 4, a3 += 4;                                                           \
                }                                                                                                 \
            }                                                                                                     \
    } while (0)

static void product_i16(const qxr_product *p)
{
    sums s = read_init(p);
#define ROW(row, at, w0, w1)                                                                                      \
    do {                                                                                                          \
        const __m256i x = spread(at);                                                                             \
        row[0] = _mm256_add_epi32(row[0], _mm256_madd_epi16(x, w0));                                              \
        row[1] = _mm256_add_epi32(row[1], _mm256_madd_epi16(x, w1));                                              \
    } while (0)
#define STEP(a0, a1, a2, a3, w0, w1)                                                                              \
    do {                                                                                                          \
        ROW(s.r0, a0, w0, w1);                                                                                    \
        ROW(s.r1, a1, w0, w1);                                                                                    \
        ROW(s.r2, a2, w0, w1);                                                                                    \
        ROW(s.r3, a3, w0, w1);                                                                                    \
    } while (0)
    FOR_EACH_STEP(p, STEP);
#undef ROW
#undef STEP
    write_out(p, &s);
}

/* Each product of bytes and the sum of two fit 16 bits, but not many: every step is widened. */
static void product_u8_widening(const qxr_product *p)
{
    const __m256i ones = _mm256_set1_epi16(1);
    sums s = read_init(p);
#define ROW(row, at, w0, w1)                                                                                      \
    do {                                                                                                          \
        const __m256i x = spread(at);                                                                             \
        row[0] = _mm256_add_epi32(row[0], _mm256_madd_epi16(_mm256_maddubs_epi16(x, w0), ones));                  \
        row[1] = _mm256_add_epi32(row[1], _mm256_madd_epi16(_mm256_maddubs_epi16(x, w1), ones));                  \
    } while (0)
#define STEP(a0, a1, a2, a3, w0, w1)                                                                              \
    do {                                                                                                          \
        ROW(s.r0, a0, w0, w1);                                                                                    \
        ROW(s.r1, a1, w0, w1);                                                                                    \
        ROW(s.r2, a2, w0, w1);                                                                                    \
        ROW(s.r3, a3, w0, w1);                                                                                    \
    } while (0)
    FOR_EACH_STEP(p, STEP);
#undef ROW
#undef STEP
    write_out(p, &s);
}

static inline void widen_row(int32_t *out, __m256i *row)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[2];
    read_row(out, sum);
    sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(row[0], ones));
    sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(row[1], ones));
    write_row(out, sum);
    row[0] = row[1] = _mm256_setzero_si256();
}

static inline void widen_all(const qxr_product *p, sums *s)
{
    widen_row(p->out, s->r0);
    widen_row(p->out + p->out_stride, s->r1);
    widen_row(p->out + 2u * p->out_stride, s->r2);
    widen_row(p->out + 3u * p->out_stride, s->r3);
}

/* Sums of `widen_after` steps fit 16 bits. */
static void product_u8_narrow(const qxr_product *p)
{
    const __m256i zero = _mm256_setzero_si256();
    uint32_t left = p->widen_after;
    sums s = read_init(p);
    write_out(p, &s);
    s.r0[0] = s.r0[1] = s.r1[0] = s.r1[1] = s.r2[0] = s.r2[1] = s.r3[0] = s.r3[1] = zero;
#define ROW(row, at, w0, w1)                                                                                      \
    do {                                                                                                          \
        const __m256i x = spread(at);                                                                             \
        row[0] = _mm256_add_epi16(row[0], _mm256_maddubs_epi16(x, w0));                                           \
        row[1] = _mm256_add_epi16(row[1], _mm256_maddubs_epi16(x, w1));                                           \
    } while (0)
#define STEP(a0, a1, a2, a3, w0, w1)                                                                              \
    do {                                                                                                          \
        ROW(s.r0, a0, w0, w1);                                                                                    \
        ROW(s.r1, a1, w0, w1);                                                                                    \
        ROW(s.r2, a2, w0, w1);                                                                                    \
        ROW(s.r3, a3, w0, w1);                                                                                    \
        if (--left == 0) {                                                                                        \
            widen_all(p, &s);                                                                                     \
            left = p->widen_after;                                                                                \
        }                                                                                                         \
    } while (0)
    FOR_EACH_STEP(p, STEP);
#undef ROW
#undef STEP
    widen_all(p, &s);
}

enum { FEW_STEPS = 3 }; /* up to here, widening at once costs less */

static void product_u8(const qxr_product *p)
{
    if (p->widen_after <= FEW_STEPS)
        product_u8_widening(p);
    else
        product_u8_narrow(p);
}

static const qxr_row_kernel u8_rows = {4, 1, 4, 16, 0, product_u8}, i16_rows = {2, 2, 4, 16, 0, product_i16};

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

const qxr_conv_kernel qxr_avx2_u8 = {"avx2 u8", u8_suits, u8_packed_size, u8_pack, u8_scratch, u8_tile};

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

const qxr_conv_kernel qxr_avx2_i16 = {"avx2 i16", i16_suits, i16_packed_size, i16_pack, i16_scratch, i16_tile};
