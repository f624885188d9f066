/* Convolution of codes of few bits with weights of at most four levels, by looking up sums of products.
 *
 * A byte holds four codes where there are two levels, else two. Its products with every choice of as many weights are 16
 * sums of 8 bits: one row of a table with a row for each byte. The weights of 16 channels are places in a row, so that one
 * look-up gives the products of a byte with 16 channels. */
#include "arm/neon_codes.h"

enum {
    ROW = 16,
    FEWEST_STEPS = 3, /* sums in 8 bits; with fewer, the products in 16 bits cost less */
    WORD_CHUNKS = 258 /* sums of 8 bits that fit 16 bits: 258 * 127 < 2^15 */
};

typedef struct head {
    uint32_t byte_steps; /* rows whose sum fits 8 bits */
    uint32_t reserved[3];
} head;

static uint32_t bits_of(uint32_t peak)
{
    uint32_t bits = 1;
    while (peak >> bits)
        bits++;
    return bits;
}

static void product(const qxr_code_product *p);

/* How the codes of a layer are packed; per = 0: not at all. */
static qxr_code_kernel kernel_of(const qxr_conv *conv)
{
    qxr_code_kernel k = {0, bits_of(conv->input_peak), 0, product};
    if (conv->weights.entries >= 1u && conv->weights.entries <= 2u && 4u * k.bits <= 8u)
        k.per = 4;
    else if (conv->weights.entries >= 1u && conv->weights.entries <= 4u && 2u * k.bits <= 8u)
        k.per = 2;
    k.head_bytes = sizeof(head) + ((size_t)ROW << (k.per * k.bits));
    return k;
}

static uint32_t byte_steps(const qxr_conv *conv, uint32_t per)
{
    const uint64_t peak = (uint64_t)per * qxr_max(conv->input_peak, 1u) * qxr_max(conv->weight_peak, 1u);
    return peak <= 127u ? 127u / (uint32_t)peak : 0u;
}

static int suits(const qxr_conv *conv)
{
    qxr_code_kernel k;
    if (qxr_storage(conv->in) != QXR_U8 || conv->input_peak > 15u)
        return 0;
    k = kernel_of(conv);
    return k.per && byte_steps(conv, k.per) >= FEWEST_STEPS && qxr_codes_suit(conv, &k);
}

/* Products of a byte of codes with the weights of a place. Places that no weights have are never looked up. */
static int32_t sum_of(const qxr_conv *conv, const qxr_code_kernel *k, uint32_t byte, uint32_t place)
{
    const uint32_t weight_bits = 4u / k->per;
    int32_t sum = 0;
    for (uint32_t i = 0; i < k->per; i++) {
        const uint32_t code = place >> i * weight_bits & ((1u << weight_bits) - 1u);
        const uint32_t input = byte >> i * k->bits & ((1u << k->bits) - 1u);
        if (code < conv->weights.entries)
            sum += conv->weights.codebook[code] * (int32_t)input;
    }
    return sum;
}

static void pack(const qxr_conv *conv, uint8_t *packed)
{
    const qxr_code_kernel k = kernel_of(conv);
    uint8_t *table = packed + sizeof(head);
    qxr_codes_pack(conv, &k, 4u / k.per, packed);
    ((head *)(void *)packed)->byte_steps = byte_steps(conv, k.per);
    for (uint32_t byte = 0; byte < 1u << (k.per * k.bits); byte++)
        for (uint32_t place = 0; place < ROW; place++)
            table[byte * ROW + place] = (uint8_t)sum_of(conv, &k, byte, place);
}

static inline int8x16_t look_up(int8x16_t sum, const uint8_t *table, const uint8_t *at, uint8x16_t places)
{
    return vaddq_s8(sum, vreinterpretq_s8_u8(vqtbl1q_u8(vld1q_u8(table + (size_t)*at * ROW), places)));
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
    const uint32_t few = ((const head *)p->head)->byte_steps;
    const uint8_t *table = (const uint8_t *)p->head + sizeof(head), *w = p->weights;
    const int32_t *from = p->init;
    size_t from_stride = 0;
    for (uint32_t done = 0; done < p->steps;) {
        const uint32_t last = qxr_min(p->steps, done + few * WORD_CHUNKS);
        int16x8_t words[QXR_CODE_PIXELS][2];
        QXR_CODE_PIXEL(q)
            words[q][0] = words[q][1] = vdupq_n_s16(0);
        while (done < last) {
            const uint32_t end = qxr_min(last, done + few);
            int8x16_t sum[QXR_CODE_PIXELS];
            QXR_CODE_PIXEL(q)
                sum[q] = vdupq_n_s8(0);
            for (; done < end; done++, w += QXR_CODE_CHANNELS) {
                const uint8x16_t places = vld1q_u8(w);
                QXR_CODE_PIXEL(q)
                    sum[q] = look_up(sum[q], table, p->window[q] + done, places);
            }
            QXR_CODE_PIXEL(q)
                widen(words[q], sum[q]);
        }
        QXR_CODE_PIXEL(q)
            add_to(from + q * from_stride, p->out + q * p->out_stride, words[q]);
        from = p->out;
        from_stride = p->out_stride;
    }
}

static void product(const qxr_code_product *p)
{
    if (p->pixels == 1u)
        sum_up(p, 1);
    else
        sum_up(p, QXR_CODE_PIXELS);
}

static size_t packed_size(const qxr_conv *conv)
{
    const qxr_code_kernel k = kernel_of(conv);
    return qxr_codes_packed_size(conv, &k);
}

static size_t scratch_size(const qxr_conv *conv)
{
    const qxr_code_kernel k = kernel_of(conv);
    return qxr_codes_scratch(conv, &k);
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const qxr_code_kernel k = kernel_of(conv);
    qxr_codes_tile(conv, &k, buffers, tile, y);
}

const qxr_conv_kernel qxr_neon_table = {"neon table", suits, packed_size, pack, scratch_size, tile_of};
