/* The other elementwise operators with AVX2. */
#include "x86/avx2_lanes.h"

void qxr_avx2_add(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const size_t count = (size_t)tile->pixels * tile->channels;
    for (size_t i = 0; i < count; i += LANES) {
        const uint32_t lanes = count - i < LANES ? (uint32_t)(count - i) : LANES;
        store_lanes(y + i, lanes, _mm256_add_epi32(load_lanes(work->x[0] + i, lanes), load_lanes(work->x[1] + i, lanes)));
    }
}

void qxr_avx2_clip(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const size_t count = (size_t)tile->pixels * tile->channels;
    const __m256i lo = _mm256_set1_epi32(work->op->first), hi = _mm256_set1_epi32(work->op->second);
    for (size_t i = 0; i < count; i += LANES) {
        const uint32_t lanes = count - i < LANES ? (uint32_t)(count - i) : LANES;
        const __m256i v = load_lanes(work->x[0] + i, lanes);
        store_lanes(y + i, lanes, _mm256_min_epi32(_mm256_max_epi32(v, lo), hi));
    }
}

void qxr_avx2_border_bias(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const uint32_t channels = work->out->extent[0], height = work->out->extent[1], width = work->out->extent[2];
    const uint32_t column_classes = (uint32_t)work->op->second;
    const int32_t *values = qxr_constants32(work), *x = work->x[0];
    const uint8_t *rows = (const uint8_t *)(values + (size_t)work->op->first * column_classes * channels);
    uint32_t row = tile->pixel / width, column = tile->pixel % width;
    for (uint32_t p = 0; p < tile->pixels; p++, x += tile->channels, y += tile->channels) {
        const size_t class = (size_t)rows[row] * column_classes + rows[height + column];
        const int32_t *bias = values + class * channels + tile->channel;
        for (uint32_t c = 0; c < tile->channels; c += LANES) {
            const uint32_t lanes = qxr_min(LANES, tile->channels - c);
            store_lanes(y + c, lanes, _mm256_add_epi32(load_lanes(x + c, lanes), load_lanes(bias + c, lanes)));
        }
        if (++column == width) {
            column = 0;
            row++;
        }
    }
}

/* Parameters of eight channels for their even and odd lanes, which are multiplied separately. */
typedef struct scale {
    __m256i multiplier[2], addend[2];
    int fits; /* the shifted result of every input fits 32 bits, before it is clamped */
} scale;

static uint64_t magnitude(int64_t value) { return value < 0 ? 0u - (uint64_t)value : (uint64_t)value; }

static scale read_scale(const qxr_work *work, uint32_t channel, uint32_t lanes)
{
    const int per_channel = (work->op->flags & QXR_PER_CHANNEL) != 0;
    const uint32_t channels = per_channel ? work->out->extent[0] : 1u;
    const int64_t *addend = (const int64_t *)(const void *)qxr_constants(work);
    const int32_t *multiplier = (const int32_t *)(addend + channels);
    const uint64_t lo = magnitude(work->in[0]->lo), hi = magnitude(work->in[0]->hi), most = lo > hi ? lo : hi;
    const uint32_t shift = work->op->parameter;
    int64_t r[LANES] = {0};
    int64_t m[LANES] = {0};
    scale s;
    s.fits = shift <= 32u;
    for (uint32_t i = 0; i < lanes; i++) {
        const uint32_t c = per_channel ? channel + i : 0u;
        r[i % 2u * 4u + i / 2u] = addend[c]; /* even channels, then odd ones */
        m[i % 2u * 4u + i / 2u] = multiplier[c];
        /* At most 2^62 each. */
        s.fits = s.fits && most * magnitude(multiplier[c]) + magnitude(addend[c]) < (uint64_t)1 << (31u + shift);
    }
    for (uint32_t half = 0; half < 2u; half++) {
        s.addend[half] = _mm256_loadu_si256((const __m256i *)(const void *)(r + 4u * half));
        s.multiplier[half] = _mm256_loadu_si256((const __m256i *)(const void *)(m + 4u * half));
    }
    return s;
}

/* AVX2 shifts 64 bits only logically: the sign bit is turned round before the shift, and taken off behind it. */
static inline __m256i shift_floor(__m256i v, __m128i shift, __m256i sign, __m256i shifted_sign)
{
    return _mm256_sub_epi64(_mm256_srl_epi64(_mm256_xor_si256(v, sign), shift), shifted_sign);
}

static inline __m256i clamp(__m256i v, __m256i lo, __m256i hi)
{
    v = _mm256_blendv_epi8(v, lo, _mm256_cmpgt_epi64(lo, v));
    return _mm256_blendv_epi8(v, hi, _mm256_cmpgt_epi64(v, hi));
}

/* Eight channels of all pixels, clamped in 64 bits. */
static void rescale_wide(const qxr_op *op, const scale *s, const int32_t *from, uint32_t lanes, const qxr_tile *tile,
                         int32_t *y)
{
    const __m128i shift = _mm_cvtsi32_si128(op->parameter);
    const __m256i sign = _mm256_set1_epi64x(INT64_MIN), shifted_sign = _mm256_srl_epi64(sign, shift);
    const __m256i lo = _mm256_set1_epi64x(op->first), hi = _mm256_set1_epi64x(op->second);
    for (uint32_t p = 0; p < tile->pixels; p++, from += tile->channels, y += tile->channels) {
        const __m256i x = load_lanes(from, lanes);
        __m256i even = _mm256_mul_epi32(x, s->multiplier[0]);
        __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(x, 32), s->multiplier[1]);
        even = shift_floor(_mm256_add_epi64(even, s->addend[0]), shift, sign, shifted_sign);
        odd = shift_floor(_mm256_add_epi64(odd, s->addend[1]), shift, sign, shifted_sign);
        even = clamp(even, lo, hi);
        odd = clamp(odd, lo, hi);
        store_lanes(y, lanes, _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA));
    }
}

/* The same where the shifted result fits 32 bits: its lower half needs no sign from above, as the shift is at most 32,
 * and it is clamped in 32 bits. */
static inline void rescale_narrow(const qxr_op *op, const scale *s, const int32_t *from, uint32_t lanes,
                                  const qxr_tile *tile, int32_t *y)
{
    const __m128i shift = _mm_cvtsi32_si128(op->parameter), rise = _mm_cvtsi32_si128(32 - op->parameter);
    const __m256i lo = _mm256_set1_epi32(op->first), hi = _mm256_set1_epi32(op->second);
    for (uint32_t p = 0; p < tile->pixels; p++, from += tile->channels, y += tile->channels) {
        const __m256i x = load_lanes(from, lanes);
        __m256i even = _mm256_mul_epi32(x, s->multiplier[0]);
        __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(x, 32), s->multiplier[1]);
        even = _mm256_srl_epi64(_mm256_add_epi64(even, s->addend[0]), shift);
        odd = _mm256_sll_epi64(_mm256_add_epi64(odd, s->addend[1]), rise);
        even = _mm256_blend_epi32(even, odd, 0xAA);
        store_lanes(y, lanes, _mm256_min_epi32(_mm256_max_epi32(even, lo), hi));
    }
}

void qxr_avx2_rescale(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    for (uint32_t c = 0; c < tile->channels; c += LANES) {
        const uint32_t lanes = qxr_min(LANES, tile->channels - c);
        const scale s = read_scale(work, tile->channel + c, lanes);
        const int32_t *from = work->x[0] + c;
        if (!s.fits)
            rescale_wide(work->op, &s, from, lanes, tile, y + c);
        else if (lanes == LANES)
            rescale_narrow(work->op, &s, from, LANES, tile, y + c);
        else
            rescale_narrow(work->op, &s, from, lanes, tile, y + c);
    }
}
