/* Thresholds with AVX2: a comparison a step where the steps are few, else a binary search in every lane. */
#include "x86/avx2_lanes.h"

enum {
    MOST_COMPARED = 64, /* steps; above, the search costs less */
    TABLE_LANES = 8
};

static inline __m256i thresholds_at(const qxr_threshold_column *k, uint32_t i)
{
    const int32_t *at = k->thresholds + i * k->stride;
    return k->steps.stride ? load_lanes(at, k->lanes) : _mm256_set1_epi32(*at);
}

static __m256i signs(const qxr_steps *s, uint32_t channel, uint32_t lanes)
{
    int32_t sign[LANES] = {0};
    for (uint32_t i = 0; i < lanes; i++)
        sign[i] = qxr_is_negative(s, channel + i) ? -1 : 0;
    return load_lanes(sign, LANES);
}

void qxr_read_threshold(const qxr_work *work, const qxr_tile *tile, uint32_t c, uint32_t lanes, qxr_threshold_column *k)
{
    k->steps = qxr_read_steps(work, tile);
    k->lanes = lanes;
    k->thresholds = k->steps.thresholds + (k->steps.stride ? c : 0u);
    k->stride = k->steps.stride ? k->steps.stride : 1u;
    k->sign = signs(&k->steps, tile->channel + c, lanes);
    k->first = _mm256_set1_epi32(k->steps.first);
    k->step = _mm256_set1_epi32(k->steps.step);
    k->table = _mm256_setzero_si256();
    if (k->steps.levels)
        k->table = load_lanes(k->steps.levels, qxr_min(k->steps.count + 1u, TABLE_LANES));
    for (uint32_t i = 0; i < HELD_STEPS; i++)
        k->held[i] = i < k->steps.count ? thresholds_at(k, i) : _mm256_setzero_si256();
}

static inline __m256i level_of(const qxr_threshold_column *k, __m256i code)
{
    if (!k->steps.levels)
        return _mm256_add_epi32(k->first, _mm256_mullo_epi32(code, k->step));
    if (k->steps.count < TABLE_LANES)
        return _mm256_permutevar8x32_epi32(k->table, code);
    return _mm256_i32gather_epi32((const int *)k->steps.levels, code, 4);
}

INLINE __m256i signed_input(const qxr_threshold_column *k, const int32_t *x, uint32_t lanes, int has_signs)
{
    const __m256i v = load_lanes(x, lanes);
    return has_signs ? _mm256_sub_epi32(_mm256_xor_si256(v, k->sign), k->sign) : v;
}

/* code = steps - #{i : t_i > x} */
INLINE void one_step(const qxr_span *s, size_t from_pitch, size_t to_pitch, const qxr_threshold_column *k,
                     uint32_t lanes, int has_signs)
{
    const __m256i low = k->steps.levels ? _mm256_set1_epi32(k->steps.levels[0]) : k->first, t = k->held[0];
    const __m256i high = k->steps.levels ? _mm256_set1_epi32(k->steps.levels[1]) : _mm256_add_epi32(k->first, k->step);
    const int32_t *x = s->from;
    int32_t *y = s->to;
    const uint32_t pixels = s->pixels;
    UNROLL_4 for (uint32_t p = 0; p < pixels; p++) {
        const __m256i above = _mm256_cmpgt_epi32(t, signed_input(k, x + p * from_pitch, lanes, has_signs));
        store_lanes(y + p * to_pitch, lanes, _mm256_blendv_epi8(high, low, above));
    }
}

/* `plain`: levels are first, first + 1 and so on. */
INLINE void three_steps(const qxr_span *s, size_t from_pitch, size_t to_pitch, const qxr_threshold_column *k,
                        uint32_t lanes, int has_signs, int plain)
{
    const __m256i three = _mm256_set1_epi32(3), top = plain ? _mm256_add_epi32(three, k->first) : three;
    const __m256i a = k->held[0], b = k->held[1], c = k->held[2];
    const int32_t *x = s->from;
    int32_t *y = s->to;
    const uint32_t pixels = s->pixels;
    UNROLL_4 for (uint32_t p = 0; p < pixels; p++) {
        const __m256i v = signed_input(k, x + p * from_pitch, lanes, has_signs);
        const __m256i above = _mm256_add_epi32(_mm256_cmpgt_epi32(a, v), _mm256_cmpgt_epi32(b, v));
        const __m256i code = _mm256_add_epi32(_mm256_add_epi32(top, above), _mm256_cmpgt_epi32(c, v));
        store_lanes(y + p * to_pitch, lanes, plain ? code : level_of(k, code));
    }
}

static void some_steps(const qxr_threshold_column *k, const qxr_span *s)
{
    const int32_t *x = s->from;
    int32_t *y = s->to;
    const __m256i count = _mm256_set1_epi32((int32_t)k->steps.count);
    for (uint32_t p = 0; p < s->pixels; p++, x += s->from_pitch, y += s->to_pitch) {
        const __m256i v = signed_input(k, x, k->lanes, 1);
        __m256i code = count;
        for (uint32_t i = 0; i < k->steps.count; i++)
            code = _mm256_add_epi32(code, _mm256_cmpgt_epi32(thresholds_at(k, i), v));
        store_lanes(y, k->lanes, level_of(k, code));
    }
}

/* The code grows by the largest powers of two for which the threshold there is reached. */
static void search_steps(const qxr_threshold_column *k, const qxr_span *s)
{
    const int32_t *x = s->from;
    int32_t *y = s->to;
    const __m256i one = _mm256_set1_epi32(1), last = _mm256_set1_epi32((int32_t)k->steps.count - 1);
    const __m256i stride = _mm256_set1_epi32((int32_t)k->stride);
    const __m256i lane = _mm256_min_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), /* none beyond the channels */
                                          _mm256_set1_epi32(k->steps.stride ? (int32_t)k->lanes - 1 : 0));
    uint32_t top = 1;
    while (top * 2u <= k->steps.count)
        top *= 2u;
    for (uint32_t p = 0; p < s->pixels; p++, x += s->from_pitch, y += s->to_pitch) {
        const __m256i v = signed_input(k, x, k->lanes, 1);
        __m256i code = _mm256_setzero_si256();
        for (uint32_t half = top; half; half /= 2u) {
            const __m256i more = _mm256_set1_epi32((int32_t)half);
            const __m256i step = _mm256_sub_epi32(_mm256_add_epi32(code, more), one);
            const __m256i at = _mm256_mullo_epi32(_mm256_min_epi32(step, last), stride);
            const __m256i t = _mm256_i32gather_epi32((const int *)k->thresholds, _mm256_add_epi32(at, lane), 4);
            const __m256i missed = _mm256_or_si256(_mm256_cmpgt_epi32(t, v), _mm256_cmpgt_epi32(step, last));
            code = _mm256_add_epi32(code, _mm256_andnot_si256(missed, more));
        }
        store_lanes(y, k->lanes, level_of(k, code));
    }
}

int qxr_has_byte_threshold(const qxr_threshold_column *k)
{
    const int few = k->steps.count == 1u || k->steps.count == 3u;
    return few && k->lanes == LANES && !k->steps.levels && k->steps.step == 1;
}

/* Less the thresholds above. */
INLINE __m256i compare(const qxr_threshold_column *k, const int32_t *x, uint32_t count, int has_signs)
{
    const __m256i v = signed_input(k, x, LANES, has_signs);
    __m256i above = _mm256_cmpgt_epi32(k->held[0], v);
    for (uint32_t i = 1; i < count; i++)
        above = _mm256_add_epi32(above, _mm256_cmpgt_epi32(k->held[i], v));
    return above;
}

/* Pixels 0, b, c and d. */
INLINE void four_bytes(const qxr_threshold_column *k, const int32_t *x, size_t x_pitch, uint8_t *y, size_t y_pitch,
                       uint32_t b, uint32_t c, uint32_t d, __m256i top, uint32_t count, int has_signs)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i first = _mm256_packs_epi32(compare(k, x, count, has_signs),
                                             compare(k, x + b * x_pitch, count, has_signs));
    const __m256i second = _mm256_packs_epi32(compare(k, x + c * x_pitch, count, has_signs),
                                              compare(k, x + d * x_pitch, count, has_signs));
    const __m256i level = _mm256_add_epi8(_mm256_packs_epi16(first, second), top);
    const __m256i all = _mm256_permutevar8x32_epi32(level, order);
    const __m128i low = _mm256_castsi256_si128(all), high = _mm256_extracti128_si256(all, 1);
    _mm_storel_epi64((__m128i *)(void *)y, low);
    _mm_storeh_pd((double *)(void *)(y + b * y_pitch), _mm_castsi128_pd(low));
    _mm_storel_epi64((__m128i *)(void *)(y + c * y_pitch), high);
    _mm_storeh_pd((double *)(void *)(y + d * y_pitch), _mm_castsi128_pd(high));
}

/* What is left of four pixels is the last of them again. */
INLINE void byte_threshold(const qxr_threshold_column *column, const qxr_span *s, __m256i top, uint8_t *to,
                           size_t pitch, uint32_t count, int has_signs)
{
    const qxr_threshold_column k = *column;
    const int32_t *x = s->from;
    const size_t x_pitch = s->from_pitch;
    uint32_t left = s->pixels;
    for (; left >= 4u; left -= 4u, x += 4u * x_pitch, to += 4u * pitch)
        four_bytes(&k, x, x_pitch, to, pitch, 1, 2, 3, top, count, has_signs);
    if (left)
        four_bytes(&k, x, x_pitch, to, pitch, left > 1u ? 1u : 0u, left - 1u, left - 1u, top, count, has_signs);
}

void qxr_apply_byte_threshold(const qxr_threshold_column *k, const qxr_span *span, int32_t base, uint8_t *to,
                              size_t pitch)
{
    const uint32_t count = k->steps.count, level = (uint32_t)k->steps.first + count - (uint32_t)base;
    const __m256i top = _mm256_set1_epi8((char)level);
    if (count == 1u && !k->steps.signs)
        byte_threshold(k, span, top, to, pitch, 1, 0);
    else if (count == 1u)
        byte_threshold(k, span, top, to, pitch, 1, 1);
    else if (!k->steps.signs)
        byte_threshold(k, span, top, to, pitch, 3, 0);
    else
        byte_threshold(k, span, top, to, pitch, 3, 1);
}

static void apply_one(const qxr_threshold_column *k, const qxr_span *span)
{
    if (k->lanes < LANES)
        one_step(span, span->from_pitch, span->to_pitch, k, k->lanes, 1);
    else if (k->steps.signs)
        WITH_PITCH(one_step, span, k, LANES, 1);
    else
        WITH_PITCH(one_step, span, k, LANES, 0);
}

static void apply_three(const qxr_threshold_column *k, const qxr_span *span)
{
    const int plain = !k->steps.levels && k->steps.step == 1;
    if (k->lanes < LANES || !plain)
        three_steps(span, span->from_pitch, span->to_pitch, k, k->lanes, 1, 0);
    else if (k->steps.signs)
        WITH_PITCH(three_steps, span, k, LANES, 1, 1);
    else
        WITH_PITCH(three_steps, span, k, LANES, 0, 1);
}

void qxr_apply_threshold(const qxr_threshold_column *k, const qxr_span *span)
{
    if (k->steps.count == 1u)
        apply_one(k, span);
    else if (k->steps.count == 3u)
        apply_three(k, span);
    else if (k->steps.count > MOST_COMPARED)
        search_steps(k, span);
    else
        some_steps(k, span);
}

void qxr_avx2_threshold(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    for (uint32_t c = 0; c < tile->channels; c += LANES) {
        const qxr_span span = {work->x[0] + c, y + c, tile->channels, tile->channels, tile->pixels, NULL};
        qxr_threshold_column k;
        qxr_read_threshold(work, tile, c, qxr_min(LANES, tile->channels - c), &k);
        qxr_apply_threshold(&k, &span);
    }
}
