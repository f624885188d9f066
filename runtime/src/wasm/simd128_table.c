/* Sums of products looked up, in bytes. */
#include "wasm/simd128_codes.h"

enum { WORD_CHUNKS = 257 /* sums of 8 bits that fit 16 bits: with the last one 258, and 258 * 127 < 2^15 */ };

static inline v128_t look_up(v128_t sum, const qxr_table_head *head, uint8_t byte, v128_t places)
{
    return wasm_i8x16_add(sum, wasm_i8x16_swizzle(wasm_v128_load(head->row[byte]), places));
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
    const qxr_table_head *head = p->head;
    const uint8_t *w = p->weights;
    const int32_t *from = p->init;
    size_t stride = 0;
    uint32_t left = head->byte_steps, chunks = WORD_CHUNKS;
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
                        s.bytes[r] = look_up(s.bytes[r], head, p->window[r][segment + k], places);
                }
                if (left)
                    continue;
                widen_all(&s);
                left = head->byte_steps;
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

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    static const qxr_code_kernel kernel = {qxr_simd128_pack_codes, product, QXR_CODE_PIXELS};
    qxr_code_table_tile(conv, &kernel, buffers, tile, y);
}

const qxr_conv_kernel qxr_simd128_table = {
    "simd128 table", qxr_code_table_suits, qxr_code_table_packed_size, qxr_code_table_pack, qxr_code_table_scratch,
    tile_of,
    NULL, 0,
};
