/* Convolution of codes of few bits with weights of at most four levels, by looking up sums of products.
 *
 * A byte holds four codes where there are two levels, else two. Its products with every choice of as many weights are
 * 16 sums of 8 bits: one row of a table with a row for each byte. The weights of 16 channels are places in a row, so
 * that one look-up gives the products of a byte with 16 channels. */
#include "wasm/simd128_codes.h"

enum {
    ROW = 16,
    FEWEST_STEPS = 3, /* sums in 8 bits; with fewer, the products in 16 bits cost less */
    WORD_CHUNKS = 257 /* sums of 8 bits that fit 16 bits: with the last one 258, and 258 * 127 < 2^15 */
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

static inline v128_t look_up(v128_t sum, const uint8_t *table, const uint8_t *at, v128_t places)
{
    return wasm_i8x16_add(sum, wasm_i8x16_swizzle(wasm_v128_load(table + (size_t)*at * ROW), places));
}

static inline void widen(v128_t *words, v128_t bytes)
{
    words[0] = wasm_i16x8_add(words[0], wasm_i16x8_extend_low_i8x16(bytes));
    words[1] = wasm_i16x8_add(words[1], wasm_i16x8_extend_high_i8x16(bytes));
}

static inline void add_to(const int32_t *from, int32_t *out, const v128_t *words)
{
    for (uint32_t i = 0; i < 2u; i++, from += 8, out += 8) {
        wasm_v128_store(out, wasm_i32x4_add(wasm_v128_load(from), wasm_i32x4_extend_low_i16x8(words[i])));
        wasm_v128_store(out + 4, wasm_i32x4_add(wasm_v128_load(from + 4), wasm_i32x4_extend_high_i16x8(words[i])));
    }
}

/* Sums of the four windows in 8 and in 16 bits. */
typedef struct sums {
    v128_t bytes[QXR_CODE_PIXELS], words[QXR_CODE_PIXELS][2];
} sums;

static inline void clear_bytes(sums *s)
{
    for (uint32_t r = 0; r < QXR_CODE_PIXELS; r++)
        s->bytes[r] = wasm_i8x16_splat(0);
}

static inline void clear_words(sums *s)
{
    for (uint32_t r = 0; r < QXR_CODE_PIXELS; r++)
        s->words[r][0] = s->words[r][1] = wasm_i16x8_splat(0);
}

static inline void widen_all(sums *s)
{
    for (uint32_t r = 0; r < QXR_CODE_PIXELS; r++)
        widen(s->words[r], s->bytes[r]);
    clear_bytes(s);
}

static inline void flush(const qxr_code_product *p, const int32_t *from, size_t stride, sums *s)
{
    for (uint32_t r = 0; r < QXR_CODE_PIXELS; r++)
        add_to(from + r * stride, p->out + r * p->out_stride, s->words[r]);
    clear_words(s);
}

/* Sums of 8 bits join those of 16, and these the output, each as late as its range allows. */
static void product(const qxr_code_product *p)
{
    const uint32_t few = ((const head *)p->head)->byte_steps;
    const uint8_t *table = (const uint8_t *)p->head + sizeof(head), *w = p->weights;
    const int32_t *from = p->init;
    size_t stride = 0;
    uint32_t left = few, chunks = WORD_CHUNKS;
    sums s;
    clear_bytes(&s);
    clear_words(&s);
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const size_t segment = outer * p->outer_step + inner * p->inner_step;
            for (uint32_t k = 0; k < p->length;) {
                const uint32_t end = qxr_min(p->length, k + left);
                left -= end - k;
                for (; k < end; k++, w += QXR_CODE_CHANNELS) {
                    const v128_t places = wasm_v128_load(w);
                    for (uint32_t r = 0; r < QXR_CODE_PIXELS; r++)
                        s.bytes[r] = look_up(s.bytes[r], table, p->window[r] + segment + k, places);
                }
                if (left)
                    continue;
                widen_all(&s);
                left = few;
                if (--chunks)
                    continue;
                flush(p, from, stride, &s);
                from = p->out;
                stride = p->out_stride;
                chunks = WORD_CHUNKS;
            }
        }
    widen_all(&s);
    flush(p, from, stride, &s);
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

const qxr_conv_kernel qxr_simd128_table = {"simd128 table", suits, packed_size, pack, scratch_size, tile_of};
