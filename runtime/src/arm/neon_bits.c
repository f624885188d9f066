/* One-bit codes: bits that differ are counted in bytes. */
#include "arm/neon_codes.h"

enum { MOST_VALUE = 32767 };

static int suits(const qxr_conv *conv)
{
    return qxr_code_bits_suit(conv) && conv->weights.codebook[1] <= MOST_VALUE;
}

/* out = from - v * counts, 16 channels of one pixel. */
static inline void subtract(const int32_t *from, int32_t *out, int16_t value, uint8x16_t counts)
{
    const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(counts)));
    const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(counts));
    vst1q_s32(out, vmlsl_n_s16(vld1q_s32(from), vget_low_s16(low), value));
    vst1q_s32(out + 4, vmlsl_high_n_s16(vld1q_s32(from + 4), low, value));
    vst1q_s32(out + 8, vmlsl_n_s16(vld1q_s32(from + 8), vget_low_s16(high), value));
    vst1q_s32(out + 12, vmlsl_high_n_s16(vld1q_s32(from + 12), high, value));
}

/* Counts leave for the output before a byte could overflow; `from` is what has been summed so far. */
QXR_CODE_INLINE void count(const qxr_code_product *p, uint32_t pixels)
{
    const int16_t value = (int16_t)((const qxr_bits_head *)p->head)->value;
    const uint8_t *w = p->weights;
    const int32_t *from = p->init;
    size_t stride = 0;
    uint32_t left = QXR_BITS_STEPS;
    uint8x16_t sum[QXR_CODE_PIXELS];
    QXR_CODE_PIXEL(q)
        sum[q] = vdupq_n_u8(0);
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const size_t segment = outer * p->outer_step + inner * p->inner_step;
            for (uint32_t k = 0; k < p->length;) {
                const uint32_t end = qxr_min(p->length, k + left);
                left -= end - k;
                for (; k < end; k++, w += QXR_CODE_CHANNELS) {
                    const uint8x16_t weights = vld1q_u8(w);
                    QXR_CODE_PIXEL(q) {
                        const uint8x16_t codes = vld1q_dup_u8(p->window[q] + segment + k);
                        sum[q] = vaddq_u8(sum[q], vcntq_u8(veorq_u8(codes, weights)));
                    }
                }
                if (left)
                    continue;
                QXR_CODE_PIXEL(q) {
                    subtract(from + q * stride, p->out + q * p->out_stride, value, sum[q]);
                    sum[q] = vdupq_n_u8(0);
                }
                from = p->out;
                stride = p->out_stride;
                left = QXR_BITS_STEPS;
            }
        }
    QXR_CODE_PIXEL(q)
        subtract(from + q * stride, p->out + q * p->out_stride, value, sum[q]);
}

static void product(const qxr_code_product *p)
{
    if (p->pixels == 1u)
        count(p, 1);
    else
        count(p, QXR_CODE_PIXELS);
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    static const qxr_code_kernel kernel = {qxr_neon_pack_codes, product, QXR_CODE_PIXELS};
    qxr_code_bits_tile(conv, &kernel, buffers, tile, y);
}

const qxr_conv_kernel qxr_neon_bits = {
    "neon bits", suits, qxr_code_bits_packed_size, qxr_code_bits_pack, qxr_code_bits_scratch, tile_of,
    NULL, 0,
};
