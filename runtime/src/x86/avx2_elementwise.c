/* The other elementwise operators with AVX2. */
#include <string.h>

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

void qxr_apply_border_bias(const qxr_work *work, uint32_t pixel, uint32_t channel, uint32_t lanes, const qxr_span *span)
{
    const uint32_t channels = work->out->extent[0], height = work->out->extent[1], width = work->out->extent[2];
    const uint32_t column_classes = (uint32_t)work->op->second;
    const int32_t *values = qxr_constants32(work), *x = span->from;
    const uint8_t *rows = (const uint8_t *)(values + (size_t)work->op->first * column_classes * channels);
    const uint8_t *columns = rows + height;
    int32_t *y = span->to;
    uint32_t row = pixel / width, column = pixel % width;
    values += channel;
    for (uint32_t p = 0; p < span->pixels;) {
        const uint8_t class = columns[column];
        const int32_t *bias = values + ((size_t)rows[row] * column_classes + class) * channels;
        const __m256i more = load_lanes(bias, lanes);
        /* Most pixels of a row are of one class. */
        for (; p < span->pixels && column < width && columns[column] == class; p++, column++) {
            store_lanes(y, lanes, _mm256_add_epi32(load_lanes(x, lanes), more));
            x += span->from_pitch;
            y += span->to_pitch;
        }
        if (column == width) {
            column = 0;
            row++;
        }
    }
}

void qxr_avx2_border_bias(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    for (uint32_t c = 0; c < tile->channels; c += LANES) {
        const qxr_span span = {work->x[0] + c, y + c, tile->channels, tile->channels, tile->pixels, NULL};
        qxr_apply_border_bias(work, tile->pixel, tile->channel + c, qxr_min(LANES, tile->channels - c), &span);
    }
}

static uint32_t magnitude(int32_t value) { return value < 0 ? 0u - (uint32_t)value : (uint32_t)value; }

static __m256i magnitudes64(__m256i v)
{
    const __m256i sign = _mm256_cmpgt_epi64(_mm256_setzero_si256(), v);
    return _mm256_sub_epi64(_mm256_xor_si256(v, sign), sign);
}

/* The bits that |x| |multiplier| + |addend| may have above the shifted 32, for x up to `most`; each factor fits 32 bits and
 * the sum 64. */
static __m256i bits_above(uint32_t most, __m256i multiplier, __m256i addend, uint32_t shift)
{
    const __m256i product = _mm256_mul_epu32(_mm256_set1_epi64x(most), _mm256_abs_epi32(multiplier));
    return _mm256_srl_epi64(_mm256_add_epi64(product, magnitudes64(addend)), _mm_cvtsi32_si128(31 + (int32_t)shift));
}

void qxr_read_rescale(const qxr_work *work, const qxr_tile *tile, uint32_t c, uint32_t lanes, qxr_rescale_column *k)
{
    const int per_channel = (work->op->flags & QXR_PER_CHANNEL) != 0;
    const uint32_t channels = per_channel ? work->out->extent[0] : 1u, first = per_channel ? tile->channel + c : 0u;
    const int64_t *addend = (const int64_t *)(const void *)qxr_constants(work) + first;
    const int32_t *multiplier = (const int32_t *)(const void *)(qxr_constants(work) + 8u * channels) + first;
    const uint32_t most = qxr_max(magnitude(work->in[0]->lo), magnitude(work->in[0]->hi));
    int64_t r[LANES] = {0};
    int32_t m[LANES] = {0};
    for (uint32_t i = 0; i < lanes && (!per_channel || lanes < LANES); i++) {
        r[i] = addend[per_channel ? i : 0u];
        m[i] = multiplier[per_channel ? i : 0u];
    }
    if (per_channel && lanes == LANES) {
        memcpy(r, addend, sizeof r);
        memcpy(m, multiplier, sizeof m);
    }
    const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)r);
    const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(r + 4));
    k->shift = work->op->parameter;
    k->lanes = lanes;
    k->lo = work->op->first;
    k->hi = work->op->second;
    k->multiplier[0] = load_lanes(m, LANES);
    k->multiplier[1] = _mm256_srli_epi64(k->multiplier[0], 32);
    k->addend[0] = _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(low, high), 0xD8);
    k->addend[1] = _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(low, high), 0xD8);
    k->fits = 0;
    if (k->shift < 32u) {
        const __m256i above = _mm256_or_si256(bits_above(most, k->multiplier[0], k->addend[0], k->shift),
                                              bits_above(most, k->multiplier[1], k->addend[1], k->shift));
        k->fits = _mm256_testz_si256(above, above);
    }
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

/* Eight channels of some pixels, clamped in 64 bits. */
static void rescale_wide(const qxr_rescale_column *s, const qxr_span *span)
{
    const int32_t *from = span->from;
    int32_t *y = span->to;
    const __m128i shift = _mm_cvtsi32_si128((int32_t)s->shift);
    const __m256i sign = _mm256_set1_epi64x(INT64_MIN), shifted_sign = _mm256_srl_epi64(sign, shift);
    const __m256i lo = _mm256_set1_epi64x(s->lo), hi = _mm256_set1_epi64x(s->hi);
    for (uint32_t p = 0; p < span->pixels; p++, from += span->from_pitch, y += span->to_pitch) {
        const __m256i x = load_lanes(from, s->lanes);
        __m256i even = _mm256_mul_epi32(x, s->multiplier[0]);
        __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(x, 32), s->multiplier[1]);
        even = shift_floor(_mm256_add_epi64(even, s->addend[0]), shift, sign, shifted_sign);
        odd = shift_floor(_mm256_add_epi64(odd, s->addend[1]), shift, sign, shifted_sign);
        even = clamp(even, lo, hi);
        odd = clamp(odd, lo, hi);
        store_lanes(y, s->lanes, _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA));
    }
}

/* How eight results are made in 32 bits. WHOLE: without a shift. LOW: the shift is below 32 and the shifted result
 * fits, so its lower half needs no sign from above. HIGH: with 32 or more the upper half has the sign, and fits. */
enum { WHOLE, LOW, HIGH };

INLINE __m256i rescaled(const qxr_rescale_column *k, __m256i x, int how)
{
    const int32_t shift = (int32_t)k->shift;
    __m256i even, odd;
    if (how == WHOLE) {
        const __m256i addend = _mm256_blend_epi32(k->addend[0], _mm256_slli_epi64(k->addend[1], 32), 0xAA);
        return _mm256_add_epi32(_mm256_mullo_epi32(x, k->multiplier[0]), addend);
    }
    even = _mm256_add_epi64(_mm256_mul_epi32(x, k->multiplier[0]), k->addend[0]);
    odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(x, 32), k->multiplier[1]), k->addend[1]);
    if (how == HIGH) {
        const __m256i upper = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
        return _mm256_sra_epi32(upper, _mm_cvtsi32_si128(shift - 32));
    }
    even = _mm256_srl_epi64(even, _mm_cvtsi32_si128(shift));
    return _mm256_blend_epi32(even, _mm256_sll_epi64(odd, _mm_cvtsi32_si128(32 - shift)), 0xAA);
}

INLINE void rescale_pixels(const qxr_span *span, size_t from_pitch, size_t to_pitch, const qxr_rescale_column *column,
                           uint32_t lanes, int how, int is_words)
{
    const qxr_rescale_column k = *column; /* what is stored cannot change it */
    const __m256i lo = _mm256_set1_epi32(k.lo), hi = _mm256_set1_epi32(k.hi);
    const int32_t *from = span->from;
    const int16_t *words = span->words;
    int32_t *y = span->to;
    const uint32_t pixels = span->pixels;
    UNROLL_4 for (uint32_t p = 0; p < pixels; p++) {
        const size_t at = p * from_pitch;
        const __m256i v = rescaled(&k, is_words ? load_words(words + at) : load_lanes(from + at, lanes), how);
        store_lanes(y + p * to_pitch, lanes, _mm256_min_epi32(_mm256_max_epi32(v, lo), hi));
    }
}

void qxr_apply_rescale(const qxr_rescale_column *k, const qxr_span *span)
{
    const size_t from = span->from_pitch, to = span->to_pitch;
    if (k->shift < 32u && !k->fits)
        rescale_wide(k, span);
    else if (span->words)
        rescale_pixels(span, from, to, k, LANES, LOW, 1);
    else if (k->lanes < LANES && k->shift >= 32u)
        rescale_pixels(span, from, to, k, k->lanes, HIGH, 0);
    else if (k->lanes < LANES)
        rescale_pixels(span, from, to, k, k->lanes, LOW, 0);
    else if (k->shift >= 32u)
        WITH_PITCH(rescale_pixels, span, k, LANES, HIGH, 0);
    else if (k->shift == 0u)
        WITH_PITCH(rescale_pixels, span, k, LANES, WHOLE, 0);
    else
        WITH_PITCH(rescale_pixels, span, k, LANES, LOW, 0);
}

void qxr_avx2_rescale(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    for (uint32_t c = 0; c < tile->channels; c += LANES) {
        const qxr_span span = {work->x[0] + c, y + c, tile->channels, tile->channels, tile->pixels, NULL};
        qxr_rescale_column k;
        qxr_read_rescale(work, tile, c, qxr_min(LANES, tile->channels - c), &k);
        qxr_apply_rescale(&k, &span);
    }
}
