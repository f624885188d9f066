/* Sums of products looked up, in bytes. */
#include "arm/neon_codes.h"

enum { WORD_CHUNKS = 257 /* sums of 8 bits that fit 16 bits: with the last one 258, and 258 * 127 < 2^15 */ };

static inline int8x16_t look_up(int8x16_t sum, const qxr_table_head *head, uint8_t byte, uint8x16_t places)
{
    return vaddq_s8(sum, vqtbl1q_s8(vld1q_s8(head->row[byte]), places));
}

static inline void widen(int16x8_t *words, int8x16_t bytes)
{
    words[0] = vaddw_s8(words[0], vget_low_s8(bytes));
    words[1] = vaddw_high_s8(words[1], bytes);
}

static inline void add_to(const int32_t *from, int32_t *out, const int16x8_t *words)
{
    for (uint32_t i = 0; i < 2u; i++) {
        vst1q_s32(out + 8u * i, vaddw_s16(vld1q_s32(from + 8u * i), vget_low_s16(words[i])));
        vst1q_s32(out + 8u * i + 4u, vaddw_high_s16(vld1q_s32(from + 8u * i + 4u), words[i]));
    }
}

/* Sums of 8 bits join those of 16, and these the output, each as late as its range allows. */
QXR_CODE_INLINE void sum_up(const qxr_code_product *p, uint32_t pixels)
{
    const qxr_table_head *head = p->head;
    const uint8_t *w = p->weights;
    const int32_t *from = p->init;
    size_t stride = 0;
    uint32_t left = head->byte_steps, chunks = WORD_CHUNKS;
    int8x16_t sum[QXR_CODE_PIXELS];
    int16x8_t words[QXR_CODE_PIXELS][2];
    QXR_CODE_PIXEL(q) {
        sum[q] = vdupq_n_s8(0);
        words[q][0] = words[q][1] = vdupq_n_s16(0);
    }
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const size_t segment = outer * p->outer_step + inner * p->inner_step;
            for (uint32_t k = 0; k < p->length;) {
                const uint32_t end = qxr_min(p->length, k + left);
                left -= end - k;
                for (; k < end; k++, w += QXR_CODE_CHANNELS) {
                    const uint8x16_t places = vld1q_u8(w);
                    QXR_CODE_PIXEL(q)
                        sum[q] = look_up(sum[q], head, p->window[q][segment + k], places);
                }
                if (left)
                    continue;
                left = head->byte_steps;
                QXR_CODE_PIXEL(q) {
                    widen(words[q], sum[q]);
                    sum[q] = vdupq_n_s8(0);
                }
                if (--chunks)
                    continue;
                QXR_CODE_PIXEL(q) {
                    add_to(from + q * stride, p->out + q * p->out_stride, words[q]);
                    words[q][0] = words[q][1] = vdupq_n_s16(0);
                }
                from = p->out;
                stride = p->out_stride;
                chunks = WORD_CHUNKS;
            }
        }
    QXR_CODE_PIXEL(q) {
        widen(words[q], sum[q]);
        add_to(from + q * stride, p->out + q * p->out_stride, words[q]);
    }
}

static void product(const qxr_code_product *p)
{
    if (p->pixels == 1u)
        sum_up(p, 1);
    else
        sum_up(p, QXR_CODE_PIXELS);
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    static const qxr_code_kernel kernel = {qxr_neon_pack_codes, product, QXR_CODE_PIXELS};
    qxr_code_table_tile(conv, &kernel, buffers, tile, y);
}

const qxr_conv_kernel qxr_neon_table = {
    "neon table", qxr_code_table_suits, qxr_code_table_packed_size, qxr_code_table_pack, qxr_code_table_scratch,
    tile_of,
    NULL, 0,
};
