/* One-bit codes: bits that differ are counted in bytes. */
#include "wasm/simd128_codes.h"

static inline v128_t count(v128_t sum, const uint8_t *at, v128_t w)
{
    return wasm_i8x16_add(sum, wasm_i8x16_popcnt(wasm_v128_xor(wasm_v128_load8_splat(at), w)));
}

/* out = from - v * counts, 16 channels of one pixel. */
static inline void subtract(const int32_t *from, int32_t *out, v128_t value, v128_t counts)
{
    const v128_t low = wasm_u16x8_extend_low_u8x16(counts), high = wasm_u16x8_extend_high_u8x16(counts);
    const v128_t part[4] = {wasm_u32x4_extend_low_u16x8(low), wasm_u32x4_extend_high_u16x8(low),
                            wasm_u32x4_extend_low_u16x8(high), wasm_u32x4_extend_high_u16x8(high)};
    for (uint32_t i = 0; i < 4u; i++)
        wasm_v128_store(out + 4u * i,
                        wasm_i32x4_sub(wasm_v128_load(from + 4u * i), wasm_i32x4_mul(value, part[i])));
}

/* Counts of the four windows, in bytes. */
typedef struct counts {
    v128_t s0, s1, s2, s3;
} counts;

static inline counts no_counts(void)
{
    const v128_t zero = wasm_i8x16_splat(0);
    const counts c = {zero, zero, zero, zero};
    return c;
}

/* Counts leave for the output before a byte could overflow. `from` is what has been summed so far. */
static inline void flush(const qxr_code_product *p, const int32_t *from, size_t stride, const counts *c)
{
    const v128_t value = wasm_i32x4_splat(((const qxr_bits_head *)p->head)->value);
    subtract(from, p->out, value, c->s0);
    subtract(from + stride, p->out + p->out_stride, value, c->s1);
    subtract(from + 2u * stride, p->out + 2u * p->out_stride, value, c->s2);
    subtract(from + 3u * stride, p->out + 3u * p->out_stride, value, c->s3);
}

static void product(const qxr_code_product *p)
{
    const uint8_t *w = p->weights;
    const int32_t *from = p->init;
    size_t stride = 0;
    uint32_t left = QXR_BITS_STEPS;
    counts c = no_counts();
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const size_t segment = outer * p->outer_step + inner * p->inner_step;
            for (uint32_t k = 0; k < p->length;) {
                const uint32_t end = qxr_min(p->length, k + left);
                left -= end - k;
                for (; k < end; k++, w += QXR_CODE_CHANNELS) {
                    const v128_t weights = wasm_v128_load(w);
                    c.s0 = count(c.s0, p->window[0] + segment + k, weights);
                    c.s1 = count(c.s1, p->window[1] + segment + k, weights);
                    c.s2 = count(c.s2, p->window[2] + segment + k, weights);
                    c.s3 = count(c.s3, p->window[3] + segment + k, weights);
                }
                if (left)
                    continue;
                flush(p, from, stride, &c);
                from = p->out;
                stride = p->out_stride;
                left = QXR_BITS_STEPS;
                c = no_counts();
            }
        }
    flush(p, from, stride, &c);
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    static const qxr_code_kernel kernel = {qxr_simd128_pack_codes, product, QXR_CODE_PIXELS};
    qxr_code_bits_tile(conv, &kernel, buffers, tile, y);
}

const qxr_conv_kernel qxr_simd128_bits = {
    "simd128 bits", qxr_code_bits_suit, qxr_code_bits_packed_size, qxr_code_bits_pack, qxr_code_bits_scratch, tile_of,
    NULL, 0,
};
