/* One-bit codes: bits that differ are counted with VPOPCNTDQ, 32 products of 16 channels in three instructions. */
#ifdef QXR_EMULATE
#include "emulate_avx512.h"
#else
#include <immintrin.h>
#endif

#include "vector/codes.h"
#include "x86/avx2_loops.h"
#include "x86/avx512vnni.h"

/* Sums stay in registers: `pixels` is constant in each use. */
#define EACH_PIXEL(q) UNROLL_ALL for (uint32_t q = 0; q < pixels; q++)

enum {
    PIXELS = 8, /* of a product: that many sums, and weights that are loaded once for them */
    FEW = 4,    /* as many at the end of a tile: rows of 14 pixels, two to a tile, are the usual case */
    UNIT = 4,   /* bytes of a step */
    STEP_BYTES = UNIT * QXR_CODE_CHANNELS,
    VECTOR = 64,
    FEWEST_CHANNELS = 8, /* of the 16 of a vector; groups of fewer do better in AVX2 */
    MOST_COUNT = 32767,  /* and largest weight: factors of 16 bits */
    XOR_THEN_AND = 0x48  /* (a ^ c) & b */
};

static const qxr_code_form form = {8, 1, UNIT, VECTOR};

INLINE __m512i spread(const uint8_t *at)
{
    int32_t four;
    __builtin_memcpy(&four, at, sizeof four);
    return _mm512_set1_epi32(four);
}

INLINE void add_count(__m512i *sum, __m512i different)
{
    *sum = _mm512_add_epi32(*sum, _mm512_popcnt_epi32(different));
}

/* Bits behind a segment belong to others: `used` has those of its last step. */
INLINE const uint8_t *add_segment(__m512i *sum, uint32_t pixels, const qxr_code_product *p, size_t at, __m512i used,
                                  const uint8_t *w)
{
    for (uint32_t step = p->length / UNIT; step > 0u; step--, at += UNIT, w += STEP_BYTES) {
        const __m512i weights = _mm512_load_si512(w);
        EACH_PIXEL(q)
            add_count(&sum[q], _mm512_xor_si512(weights, spread(p->window[q] + at)));
    }
    if (p->length % UNIT == 0u)
        return w;
    const __m512i weights = _mm512_load_si512(w);
    EACH_PIXEL(q)
        add_count(&sum[q], _mm512_ternarylogic_epi32(weights, used, spread(p->window[q] + at), XOR_THEN_AND));
    return w + STEP_BYTES;
}

/* init - v * counts. */
INLINE void write(const qxr_code_product *p, uint32_t pixels, const __m512i *sum)
{
    const uint32_t minus = 0u - (uint32_t)((const qxr_bits_head *)p->head)->value;
    const __m512i factor = _mm512_set1_epi32((int32_t)(minus & 0xFFFFu)), init = _mm512_loadu_si512(p->init);
    int16_t *words = p->words;
    int32_t *out = p->out;
    EACH_PIXEL(q) {
        const __m512i y = _mm512_dpwssd_epi32(init, sum[q], factor);
        if (words)
            _mm256_storeu_si256((__m256i *)(void *)(words + q * p->out_stride), _mm512_cvtsepi32_epi16(y));
        else
            _mm512_storeu_si512(out + q * p->out_stride, y);
    }
}

INLINE void multiply(const qxr_code_product *p, uint32_t pixels)
{
    const __m512i used = _mm512_set1_epi32((1 << p->length % UNIT * 8u) - 1);
    const uint8_t *w = p->weights;
    __m512i sum[PIXELS];
    EACH_PIXEL(q)
        sum[q] = _mm512_set1_epi32(0);
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++)
            w = add_segment(sum, pixels, p, outer * p->outer_step + inner * p->inner_step, used, w);
    write(p, pixels, sum);
}

static void product(const qxr_code_product *p)
{
    if (p->pixels == 1u)
        multiply(p, 1);
    else if (p->pixels <= FEW)
        multiply(p, FEW);
    else
        multiply(p, PIXELS);
}

/* Eight bytes are written at a time: behind the codes follows what is packed next, or room. */
static size_t pack_codes(const qxr_code_form *as, const uint8_t *codes, size_t count, uint8_t *to)
{
    for (size_t i = 0; i < count; i += VECTOR, to += VECTOR / as->per) {
        const __m512i x = _mm512_loadu_si512(codes + i);
        uint64_t bits = _mm512_test_epi8_mask(x, x);
        if (count - i < VECTOR)
            bits &= (UINT64_C(1) << (count - i)) - 1u;
        __builtin_memcpy(to, &bits, sizeof bits);
    }
    return count;
}

static const qxr_code_kernel kernel = {pack_codes, product, PIXELS};

static int suits(const qxr_conv *conv)
{
    return qxr_code_bits_suit(conv) && conv->weights.codebook[1] <= MOST_COUNT && conv->row <= MOST_COUNT &&
           conv->out->extent[0] >= FEWEST_CHANNELS && qxr_codes_suit(conv, &form);
}

static size_t packed_size(const qxr_conv *conv) { return qxr_codes_packed_size(conv, &form); }
static void pack(const qxr_conv *conv, uint8_t *packed) { qxr_code_bits_pack_as(conv, &form, packed); }
static size_t scratch_size(const qxr_conv *conv) { return qxr_codes_scratch(conv, &form); }

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_codes_tile(conv, &form, &kernel, buffers, tile, y);
}

static void words_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y)
{
    qxr_codes_words(conv, &form, &kernel, buffers, tile, y);
}

const qxr_conv_kernel qxr_avx512vnni_bits = {"avx512vnni bits", suits,   packed_size, pack,
                                             scratch_size,      tile_of, words_of,    0};
