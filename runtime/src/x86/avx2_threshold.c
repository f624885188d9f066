/* Thresholds with AVX2: a comparison a step where the steps are few, else a binary search in every lane. */
#include "x86/avx2_lanes.h"

enum {
    MOST_COMPARED = 64, /* steps; above, the search costs less */
    HELD_STEPS = 3,     /* steps whose thresholds stay in registers */
    TABLE_LANES = 8
};

/* Eight channels: what turns an input into a level. */
typedef struct column {
    const int32_t *thresholds; /* [count][stride] */
    size_t stride;
    __m256i held[HELD_STEPS];
    __m256i sign;              /* -1 where the channel's sign is -1, else 0 */
    __m256i first, step, table;
    const qxr_steps *steps;
    uint32_t lanes;
} column;

static inline __m256i thresholds_at(const column *k, uint32_t i)
{
    const int32_t *at = k->thresholds + i * k->stride;
    return k->steps->stride ? load_lanes(at, k->lanes) : _mm256_set1_epi32(*at);
}

static __m256i signs(const qxr_steps *s, uint32_t channel, uint32_t lanes)
{
    int32_t sign[LANES] = {0};
    for (uint32_t i = 0; i < lanes; i++)
        sign[i] = qxr_is_negative(s, channel + i) ? -1 : 0;
    return load_lanes(sign, LANES);
}

static column make_column(const qxr_steps *s, uint32_t first_channel, uint32_t c, uint32_t lanes)
{
    column k;
    k.steps = s;
    k.lanes = lanes;
    k.thresholds = s->thresholds + (s->stride ? c : 0u);
    k.stride = s->stride ? s->stride : 1u;
    k.sign = signs(s, first_channel + c, lanes);
    k.first = _mm256_set1_epi32(s->first);
    k.step = _mm256_set1_epi32(s->step);
    k.table = s->levels ? load_lanes(s->levels, qxr_min(s->count + 1u, TABLE_LANES)) : _mm256_setzero_si256();
    for (uint32_t i = 0; i < HELD_STEPS; i++)
        k.held[i] = i < s->count ? thresholds_at(&k, i) : _mm256_setzero_si256();
    return k;
}

static inline __m256i level_of(const column *k, __m256i code)
{
    if (!k->steps->levels)
        return _mm256_add_epi32(k->first, _mm256_mullo_epi32(code, k->step));
    if (k->steps->count < TABLE_LANES)
        return _mm256_permutevar8x32_epi32(k->table, code);
    return _mm256_i32gather_epi32((const int *)k->steps->levels, code, 4);
}

static inline __m256i signed_input(const column *k, const int32_t *x)
{
    return _mm256_sub_epi32(_mm256_xor_si256(load_lanes(x, k->lanes), k->sign), k->sign);
}

/* code = steps - #{i : t_i > x} */
static void one_step(const column *k, uint32_t pixels, size_t pitch, const int32_t *x, int32_t *y)
{
    const __m256i low = k->steps->levels ? _mm256_set1_epi32(k->steps->levels[0]) : k->first;
    const __m256i high = k->steps->levels ? _mm256_set1_epi32(k->steps->levels[1]) : _mm256_add_epi32(k->first, k->step);
    for (uint32_t p = 0; p < pixels; p++, x += pitch, y += pitch)
        store_lanes(y, k->lanes, _mm256_blendv_epi8(high, low, _mm256_cmpgt_epi32(k->held[0], signed_input(k, x))));
}

static void three_steps(const column *k, uint32_t pixels, size_t pitch, const int32_t *x, int32_t *y)
{
    const __m256i three = _mm256_set1_epi32(3);
    for (uint32_t p = 0; p < pixels; p++, x += pitch, y += pitch) {
        const __m256i v = signed_input(k, x);
        const __m256i above = _mm256_add_epi32(_mm256_cmpgt_epi32(k->held[0], v), _mm256_cmpgt_epi32(k->held[1], v));
        const __m256i code = _mm256_add_epi32(_mm256_add_epi32(three, above), _mm256_cmpgt_epi32(k->held[2], v));
        store_lanes(y, k->lanes, level_of(k, code));
    }
}

static void some_steps(const column *k, uint32_t pixels, size_t pitch, const int32_t *x, int32_t *y)
{
    const __m256i count = _mm256_set1_epi32((int32_t)k->steps->count);
    for (uint32_t p = 0; p < pixels; p++, x += pitch, y += pitch) {
        const __m256i v = signed_input(k, x);
        __m256i code = count;
        for (uint32_t i = 0; i < k->steps->count; i++)
            code = _mm256_add_epi32(code, _mm256_cmpgt_epi32(thresholds_at(k, i), v));
        store_lanes(y, k->lanes, level_of(k, code));
    }
}

/* The code grows by the largest powers of two for which the threshold there is reached. */
static void search_steps(const column *k, uint32_t pixels, size_t pitch, const int32_t *x, int32_t *y)
{
    const __m256i one = _mm256_set1_epi32(1), last = _mm256_set1_epi32((int32_t)k->steps->count - 1);
    const __m256i stride = _mm256_set1_epi32((int32_t)k->stride);
    const __m256i lane = _mm256_min_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), /* none beyond the channels */
                                          _mm256_set1_epi32(k->steps->stride ? (int32_t)k->lanes - 1 : 0));
    uint32_t top = 1;
    while (top * 2u <= k->steps->count)
        top *= 2u;
    for (uint32_t p = 0; p < pixels; p++, x += pitch, y += pitch) {
        const __m256i v = signed_input(k, x);
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

void qxr_avx2_threshold(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_steps s = qxr_read_steps(work, tile);
    for (uint32_t c = 0; c < tile->channels; c += LANES) {
        const column k = make_column(&s, tile->channel, c, qxr_min(LANES, tile->channels - c));
        if (s.count == 1u)
            one_step(&k, tile->pixels, tile->channels, work->x[0] + c, y + c);
        else if (s.count == 3u)
            three_steps(&k, tile->pixels, tile->channels, work->x[0] + c, y + c);
        else if (s.count > MOST_COMPARED)
            search_steps(&k, tile->pixels, tile->channels, work->x[0] + c, y + c);
        else
            some_steps(&k, tile->pixels, tile->channels, work->x[0] + c, y + c);
    }
}
