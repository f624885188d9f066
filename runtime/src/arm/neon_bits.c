/* Convolution of one-bit codes with two opposite weights, v and -v, by counting bits.
 *
 * With inputs s of 0 and 1, and weights v (2 c - 1) of codes c, the sum is v (#c - #(s xor c)), # the number of ones: #c is a
 * constant of the channel, so a step is one exclusive or and one count, for eight inputs of 16 channels. */
#include "arm/neon_codes.h"

enum {
    BYTE_STEPS = 31,    /* counts of at most 8 that fit a byte */
    MOST_VALUE = 32767
};

static const qxr_code_kernel kernel_of_bits;

typedef struct head {
    int32_t value; /* v */
    int32_t reserved[3];
} head;

static int suits(const qxr_conv *conv)
{
    const int32_t *book = conv->weights.codebook;
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= 1u && conv->weights.entries == 2u &&
           book[0] == -book[1] && book[1] <= MOST_VALUE && qxr_codes_suit(conv, &kernel_of_bits);
}

static void pack(const qxr_conv *conv, uint8_t *packed)
{
    const int32_t value = conv->weights.codebook[1];
    const uint32_t steps = qxr_code_steps(conv, &kernel_of_bits);
    qxr_codes_pack(conv, &kernel_of_bits, 1, packed);
    ((head *)(void *)packed)->value = value;
    for (uint32_t o = 0; o < conv->out->extent[0]; o++) {
        const uint8_t *weights = qxr_code_weights(conv, &kernel_of_bits, packed, o);
        int32_t *init = qxr_code_init(conv, &kernel_of_bits, packed, o);
        uint32_t count = 0;
        for (uint32_t k = 0; k < steps; k++)
            count += (uint32_t)__builtin_popcount(weights[(size_t)k * QXR_CODE_CHANNELS]);
        *init = qxr_wrap_add(*init, qxr_wrap_mul(value, (int32_t)count));
    }
}

/* out -= v * counts, 16 channels of one pixel; `from` is what has been summed so far. */
static inline void subtract(const int32_t *from, int32_t *out, int16_t value, uint8x16_t counts)
{
    const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(counts)));
    const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(counts));
    vst1q_s32(out, vmlsl_n_s16(vld1q_s32(from), vget_low_s16(low), value));
    vst1q_s32(out + 4, vmlsl_high_n_s16(vld1q_s32(from + 4), low, value));
    vst1q_s32(out + 8, vmlsl_n_s16(vld1q_s32(from + 8), vget_low_s16(high), value));
    vst1q_s32(out + 12, vmlsl_high_n_s16(vld1q_s32(from + 12), high, value));
}

QXR_CODE_INLINE void count(const qxr_code_product *p, uint32_t pixels)
{
    const int16_t value = (int16_t)((const head *)p->head)->value;
    const uint8_t *w = p->weights;
    const int32_t *from = p->init;
    size_t from_stride = 0;
    for (uint32_t done = 0; done < p->steps;) {
        const uint32_t end = qxr_min(p->steps, done + BYTE_STEPS);
        uint8x16_t sum[QXR_CODE_PIXELS];
        QXR_CODE_PIXEL(q)
            sum[q] = vdupq_n_u8(0);
        for (; done < end; done++, w += QXR_CODE_CHANNELS) {
            const uint8x16_t weights = vld1q_u8(w);
            QXR_CODE_PIXEL(q)
                sum[q] = vaddq_u8(sum[q], vcntq_u8(veorq_u8(vld1q_dup_u8(p->window[q] + done), weights)));
        }
        QXR_CODE_PIXEL(q)
            subtract(from + q * from_stride, p->out + q * p->out_stride, value, sum[q]);
        from = p->out;
        from_stride = p->out_stride;
    }
}

static void product(const qxr_code_product *p)
{
    if (p->pixels == 1u)
        count(p, 1);
    else
        count(p, QXR_CODE_PIXELS);
}

static const qxr_code_kernel kernel_of_bits = {8, 1, sizeof(head), product};

static size_t packed_size(const qxr_conv *conv) { return qxr_codes_packed_size(conv, &kernel_of_bits); }
static size_t scratch_size(const qxr_conv *conv) { return qxr_codes_scratch(conv, &kernel_of_bits); }
static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_codes_tile(conv, &kernel_of_bits, buffers, tile, y);
}

const qxr_conv_kernel qxr_neon_bits = {"neon bits", suits, packed_size, pack, scratch_size, tile_of};
