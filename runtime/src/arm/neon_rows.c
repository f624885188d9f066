/* Products of rows and packed weights: bytes summed in 16 bits, and words. */
#include <arm_neon.h>

#include "arm/neon.h"
#include "vector/rows.h"

/* Loops over rows are unrolled, so that sums stay in registers: `rows` is a constant in each place of use. */
#define INLINE static inline __attribute__((always_inline))
#define EACH_ROW(r) _Pragma("GCC unroll 4") for (uint32_t r = 0; r < rows; r++)

enum { ROWS = 4 };

/* Words: a tile of 4 pixels x 8 channels. A step is one input; four neighbours are loaded at once, at the end of a segment
 * some behind it, which nothing multiplies. */
enum { WORD_CHANNELS = 8, AT_ONCE = 4 };

typedef struct sums {
    int32x4_t low[ROWS], high[ROWS];
} sums;

INLINE void add_word(sums *s, uint32_t r, int16x4_t x, int16x8_t w, int lane)
{
    switch (lane) { /* a constant, as the instruction asks */
    case 0:
        s->low[r] = vmlal_lane_s16(s->low[r], vget_low_s16(w), x, 0);
        s->high[r] = vmlal_high_lane_s16(s->high[r], w, x, 0);
        break;
    case 1:
        s->low[r] = vmlal_lane_s16(s->low[r], vget_low_s16(w), x, 1);
        s->high[r] = vmlal_high_lane_s16(s->high[r], w, x, 1);
        break;
    case 2:
        s->low[r] = vmlal_lane_s16(s->low[r], vget_low_s16(w), x, 2);
        s->high[r] = vmlal_high_lane_s16(s->high[r], w, x, 2);
        break;
    default:
        s->low[r] = vmlal_lane_s16(s->low[r], vget_low_s16(w), x, 3);
        s->high[r] = vmlal_high_lane_s16(s->high[r], w, x, 3);
        break;
    }
}

/* One segment; returns the weights behind it. */
INLINE const int16_t *add_words(sums *s, uint32_t rows, const qxr_product *p, size_t segment, const int16_t *w)
{
    uint32_t step = 0;
    for (; step + AT_ONCE <= p->steps; step += AT_ONCE, w += AT_ONCE * WORD_CHANNELS) {
        const int16x8_t w0 = vld1q_s16(w), w1 = vld1q_s16(w + 8), w2 = vld1q_s16(w + 16), w3 = vld1q_s16(w + 24);
        EACH_ROW(r) {
            const int16x4_t x = vld1_s16((const int16_t *)(const void *)(p->row[r] + segment) + step);
            add_word(s, r, x, w0, 0);
            add_word(s, r, x, w1, 1);
            add_word(s, r, x, w2, 2);
            add_word(s, r, x, w3, 3);
        }
    }
    if (step < p->steps)
        EACH_ROW(r) {
            const int16x4_t x = vld1_s16((const int16_t *)(const void *)(p->row[r] + segment) + step);
            add_word(s, r, x, vld1q_s16(w), 0);
            if (p->steps - step > 1u)
                add_word(s, r, x, vld1q_s16(w + 8), 1);
            if (p->steps - step > 2u)
                add_word(s, r, x, vld1q_s16(w + 16), 2);
        }
    w += (p->steps - step) * WORD_CHANNELS;
    return w;
}

INLINE void multiply_words(const qxr_product *p, uint32_t rows)
{
    const int16_t *w = (const int16_t *)(const void *)p->weights;
    sums s;
    EACH_ROW(r) {
        s.low[r] = vld1q_s32(p->init + r * p->init_stride);
        s.high[r] = vld1q_s32(p->init + r * p->init_stride + 4);
    }
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++)
            w = add_words(&s, rows, p, outer * p->outer_step + inner * p->inner_step, w);
    EACH_ROW(r) {
        vst1q_s32(p->out + r * p->out_stride, s.low[r]);
        vst1q_s32(p->out + r * p->out_stride + 4, s.high[r]);
    }
}

static void product_of_words(const qxr_product *p)
{
    if (p->count == 1u)
        multiply_words(p, 1);
    else
        multiply_words(p, ROWS);
}

/* Bytes: a tile of 4 pixels x 16 channels. A step is one input. */
enum { BYTE_CHANNELS = 16 };

typedef struct narrow_sums {
    int16x8_t low[ROWS], high[ROWS];
} narrow_sums;

INLINE void clear(narrow_sums *s, uint32_t rows)
{
    EACH_ROW(r)
        s->low[r] = s->high[r] = vdupq_n_s16(0);
}

/* Adds sums of 16 bits to those at `from`, into the output. */
INLINE void widen(const qxr_product *p, uint32_t rows, const int32_t *from, size_t stride, narrow_sums *s)
{
    EACH_ROW(r) {
        const int32_t *in = from + r * stride;
        int32_t *out = p->out + r * p->out_stride;
        vst1q_s32(out, vaddw_s16(vld1q_s32(in), vget_low_s16(s->low[r])));
        vst1q_s32(out + 4, vaddw_high_s16(vld1q_s32(in + 4), s->low[r]));
        vst1q_s32(out + 8, vaddw_s16(vld1q_s32(in + 8), vget_low_s16(s->high[r])));
        vst1q_s32(out + 12, vaddw_high_s16(vld1q_s32(in + 12), s->high[r]));
    }
    clear(s, rows);
}

INLINE void add_bytes(narrow_sums *s, uint32_t rows, const uint8_t *const *row, size_t at, uint32_t count,
                      const uint8_t *w)
{
    for (uint32_t i = 0; i < count; i++, w += BYTE_CHANNELS) {
        const int8x16_t weights = vreinterpretq_s8_u8(vld1q_u8(w));
        EACH_ROW(r) {
            const int8x16_t x = vreinterpretq_s8_u8(vld1q_dup_u8(row[r] + at + i));
            s->low[r] = vmlal_s8(s->low[r], vget_low_s8(weights), vget_low_s8(x));
            s->high[r] = vmlal_high_s8(s->high[r], weights, x);
        }
    }
}

/* `widen_after` counts pairs of products. */
INLINE void multiply_bytes(const qxr_product *p, uint32_t rows)
{
    const uint32_t fit = 2u * p->widen_after;
    const uint8_t *w = p->weights;
    const int32_t *from = p->init;
    size_t stride = p->init_stride;
    uint32_t left = fit;
    narrow_sums s;
    clear(&s, rows);
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            size_t at = outer * p->outer_step + inner * p->inner_step;
            for (uint32_t done = 0; done < p->steps;) {
                const uint32_t count = qxr_min(left, p->steps - done);
                add_bytes(&s, rows, p->row, at, count, w);
                w += (size_t)count * BYTE_CHANNELS;
                at += count;
                done += count;
                left -= count;
                if (left)
                    continue;
                widen(p, rows, from, stride, &s);
                from = p->out;
                stride = p->out_stride;
                left = fit;
            }
        }
    widen(p, rows, from, stride, &s);
}

static void product_of_bytes(const qxr_product *p)
{
    if (p->count == 1u)
        multiply_bytes(p, 1);
    else
        multiply_bytes(p, ROWS);
}

static const qxr_row_kernel words = {1, 2, ROWS, WORD_CHANNELS, product_of_words, 0, 0};
static const qxr_row_kernel bytes = {1, 1, ROWS, BYTE_CHANNELS, product_of_bytes, 0, 0};

enum {
    FEWEST_CHANNELS = 2, /* groups of fewer would leave most of a block of channels empty */
    FEWEST_STEPS = 8,    /* in 16 bits; with fewer, words cost less */
    MOST_BYTE = 127      /* the product takes two signed bytes */
};

static int bytes_suit(const qxr_conv *conv)
{
    const uint64_t product = (uint64_t)conv->input_peak * conv->weight_peak;
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= MOST_BYTE && product * FEWEST_STEPS <= 32767u &&
           qxr_weight_planes(conv, &bytes) == 1u && conv->group_out >= FEWEST_CHANNELS && qxr_rows_suit(conv, &bytes);
}

static size_t bytes_packed_size(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &bytes); }
static void bytes_pack(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &bytes, packed); }
static size_t bytes_scratch(const qxr_conv *conv) { return qxr_rows_scratch(conv, &bytes); }
static void bytes_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_rows_tile(conv, &bytes, buffers, tile, y);
}

const qxr_conv_kernel qxr_neon_s8 = {"neon s8", bytes_suit, bytes_packed_size, bytes_pack,
                                       bytes_scratch, bytes_tile, NULL, 0};

static int words_suit(const qxr_conv *conv)
{
    return (qxr_storage(conv->in) != QXR_U8 || conv->input_peak <= 255u) && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, &words);
}

static size_t words_packed_size(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &words); }
static void words_pack(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &words, packed); }
static size_t words_scratch(const qxr_conv *conv) { return qxr_rows_scratch(conv, &words); }
static void words_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_rows_tile(conv, &words, buffers, tile, y);
}

const qxr_conv_kernel qxr_neon_i16 = {"neon i16", words_suit, words_packed_size, words_pack,
                                        words_scratch, words_tile, NULL, 0};
