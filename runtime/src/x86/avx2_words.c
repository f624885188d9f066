/* The elementwise operators with AVX2 on sixteen words. */
#include "x86/avx2_words.h"

#include <string.h>

#include "x86/avx2_loops.h"

enum { FEW = 3 /* thresholds that stay in registers */ };

static inline __m256i load(const int16_t *at) { return _mm256_loadu_si256((const __m256i *)(const void *)at); }

static inline void store(int16_t *at, __m256i v) { _mm256_storeu_si256((__m256i *)(void *)at, v); }

static int16_t nearest(int32_t value)
{
    return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

static uint64_t magnitude(int64_t value) { return value < 0 ? 0u - (uint64_t)value : (uint64_t)value; }

/* The nearest multiple of 2^16, over 2^16; what it leaves fits 16 bits. */
static int64_t high_part(int64_t value) { return qxr_shift_right(value + 32768, 16); }

int qxr_read_word_rescale(const qxr_work *work, uint32_t channel, qxr_word_rescale *k)
{
    const int per_channel = (work->op->flags & QXR_PER_CHANNEL) != 0;
    const int64_t *addend = (const int64_t *)(const void *)qxr_constants(work);
    const int32_t *multiplier = (const int32_t *)(addend + (per_channel ? work->out->extent[0] : 1u));
    const uint64_t lo = magnitude(work->in[0]->lo), hi = magnitude(work->in[0]->hi), most = lo > hi ? lo : hi;
    int16_t low[2][WORDS], high[2][WORDS] = {{0}};
    int32_t added[2][WORDS / 2];
    if (work->op->parameter < 16u || !qxr_fits_words(work->in[0]))
        return 0;
    k->shift = work->op->parameter - 16u;
    for (uint32_t i = 0; i < WORDS; i++) {
        const uint32_t from = per_channel ? channel + i : 0u, half = i / 4u % 2u, at = i % 4u + i / 8u * 4u;
        const int64_t m = high_part(multiplier[from]), a = high_part(addend[from]);
        if (m > INT16_MAX || magnitude(a) + most * magnitude(m) + most > INT32_MAX)
            return 0;
        low[half][2u * at] = (int16_t)(multiplier[from] - m * 65536);
        low[half][2u * at + 1u] = (int16_t)(addend[from] - a * 65536);
        high[half][2u * at] = (int16_t)m;
        added[half][at] = (int32_t)a;
    }
    for (uint32_t half = 0; half < 2u; half++) {
        k->low[half] = load(low[half]);
        k->high[half] = load(high[half]);
        k->addend[half] = _mm256_loadu_si256((const __m256i *)(const void *)added[half]);
    }
    return 1;
}

/* Eight values, each paired with 1. */
static inline __m256i rescale_pairs(__m256i x, __m256i low, __m256i high, __m256i addend, __m128i shift)
{
    const __m256i below = _mm256_srai_epi32(_mm256_madd_epi16(x, low), 16);
    const __m256i v = _mm256_add_epi32(_mm256_madd_epi16(x, high), addend);
    return _mm256_sra_epi32(_mm256_add_epi32(v, below), shift);
}

INLINE void rescale(const qxr_word_rescale *k, qxr_words x, size_t x_pitch, qxr_words y, size_t y_pitch,
                    uint32_t pixels, int clamps, __m256i lo, __m256i hi)
{
    const __m256i low0 = k->low[0], low1 = k->low[1], high0 = k->high[0], high1 = k->high[1], one = _mm256_set1_epi16(1);
    const __m256i addend0 = k->addend[0], addend1 = k->addend[1];
    const __m128i shift = _mm_cvtsi32_si128((int32_t)k->shift);
    UNROLL_2 for (uint32_t p = 0; p < pixels; p++) {
        const __m256i v = load(x.at + p * x_pitch);
        const __m256i a = rescale_pairs(_mm256_unpacklo_epi16(v, one), low0, high0, addend0, shift);
        const __m256i b = rescale_pairs(_mm256_unpackhi_epi16(v, one), low1, high1, addend1, shift);
        const __m256i both = _mm256_packs_epi32(a, b);
        store(y.at + p * y_pitch, clamps ? _mm256_min_epi16(_mm256_max_epi16(both, lo), hi) : both);
    }
}

void qxr_rescale_words(const qxr_word_rescale *k, qxr_words x, qxr_words y, int32_t lo, int32_t hi, uint32_t pixels)
{
    const __m256i low = _mm256_set1_epi16(nearest(lo)), high = _mm256_set1_epi16(nearest(hi));
    const int clamps = lo > INT16_MIN || hi < INT16_MAX;
    if (clamps)
        rescale(k, x, x.pitch, y, y.pitch, pixels, 1, low, high);
    else if (x.pitch == WORDS && y.pitch == WORDS)
        rescale(k, x, WORDS, y, WORDS, pixels, 0, low, high);
    else
        rescale(k, x, x.pitch, y, y.pitch, pixels, 0, low, high);
}

INLINE void add(qxr_words a, size_t a_pitch, qxr_words b, size_t b_pitch, qxr_words y, size_t y_pitch, uint32_t pixels,
                int clamps, __m256i lo, __m256i hi)
{
    UNROLL_4 for (uint32_t p = 0; p < pixels; p++) {
        const __m256i sum = _mm256_adds_epi16(load(a.at + p * a_pitch), load(b.at + p * b_pitch));
        store(y.at + p * y_pitch, clamps ? _mm256_min_epi16(_mm256_max_epi16(sum, lo), hi) : sum);
    }
}

void qxr_add_words(qxr_words a, qxr_words b, qxr_words y, int32_t lo, int32_t hi, uint32_t pixels)
{
    const __m256i low = _mm256_set1_epi16(nearest(lo)), high = _mm256_set1_epi16(nearest(hi));
    const int clamps = lo > INT16_MIN || hi < INT16_MAX;
    if (clamps)
        add(a, a.pitch, b, b.pitch, y, y.pitch, pixels, 1, low, high);
    else if (a.pitch == WORDS && b.pitch == WORDS && y.pitch == WORDS)
        add(a, WORDS, b, WORDS, y, WORDS, pixels, 0, low, high);
    else
        add(a, a.pitch, b, b.pitch, y, y.pitch, pixels, 0, low, high);
}

void qxr_clip_words(qxr_words x, qxr_words y, int32_t lo, int32_t hi, uint32_t pixels)
{
    const __m256i low = _mm256_set1_epi16(nearest(lo)), high = _mm256_set1_epi16(nearest(hi));
    UNROLL_4 for (uint32_t p = 0; p < pixels; p++)
        store(y.at + p * y.pitch, _mm256_min_epi16(_mm256_max_epi16(load(x.at + p * x.pitch), low), high));
}

void qxr_load_words(const uint8_t *x, size_t pitch, int32_t base, qxr_words y, uint32_t pixels)
{
    const __m256i more = _mm256_set1_epi16((int16_t)base);
    UNROLL_4 for (uint32_t p = 0; p < pixels; p++) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(x + p * pitch));
        store(y.at + p * y.pitch, _mm256_add_epi16(_mm256_cvtepu8_epi16(bytes), more));
    }
}

/* Levels as bytes, the highest code's first. */
static void read_levels(const qxr_work *work, const qxr_steps *s, qxr_word_threshold *k)
{
    uint8_t levels[2 * WORDS] = {0};
    k->plain = 1;
    for (uint32_t i = 0; i <= s->count; i++) {
        const int32_t code = (int32_t)(s->count - i), plain = qxr_wrap_add(s->first, qxr_wrap_mul(code, s->step));
        const int32_t level = s->levels ? s->levels[code] : plain;
        levels[i] = levels[WORDS + i] = (uint8_t)((uint32_t)level - (uint32_t)qxr_base(work->out));
        k->plain = k->plain && levels[i] == (uint8_t)(levels[0] - i);
    }
    k->levels = _mm256_loadu_si256((const __m256i *)(const void *)levels);
}

static inline __m256i load_eight(const int32_t *at) { return _mm256_loadu_si256((const __m256i *)(const void *)at); }

static int any_above(__m256i a, __m256i b, int32_t limit)
{
    const __m256i most = _mm256_set1_epi32(limit), above = _mm256_cmpgt_epi32(_mm256_max_epi32(a, b), most);
    return !_mm256_testz_si256(above, above);
}

static int all_above(__m256i a, __m256i b, int32_t limit)
{
    const __m256i least = _mm256_set1_epi32(limit), above = _mm256_cmpgt_epi32(_mm256_min_epi32(a, b), least);
    return _mm256_movemask_epi8(above) == -1;
}

static __m256i read_signs(const qxr_steps *s, uint32_t channel)
{
    int16_t sign[WORDS];
    for (uint32_t c = 0; c < WORDS; c++)
        sign[c] = qxr_is_negative(s, channel + c) ? -1 : 0;
    return load(sign);
}

int qxr_read_word_threshold(const qxr_work *work, uint32_t channel, qxr_word_threshold *k)
{
    const qxr_tile whole = {0, 0, 0, work->out->extent[0]};
    const qxr_steps s = qxr_read_steps(work, &whole);
    const qxr_tensor *in = work->in[0];
    /* Of what is compared, which the sign may have turned round. */
    const int32_t lo = s.signs && -in->hi < in->lo ? -in->hi : in->lo;
    const int32_t hi = s.signs && -in->lo > in->hi ? -in->lo : in->hi;
    memset(k->threshold, 0, FEW * sizeof *k->threshold);
    if (s.count > MOST_WORD_THRESHOLDS || qxr_storage(work->out) != QXR_U8 ||
        (s.signs && (lo <= INT16_MIN || hi > INT16_MAX)))
        return 0;
    for (uint32_t i = 0; i < s.count; i++) {
        const int32_t *row = s.thresholds + i * s.stride + (s.stride ? channel : 0u);
        const __m256i a = s.stride ? load_eight(row) : _mm256_set1_epi32(s.thresholds[i]);
        const __m256i b = s.stride ? load_eight(row + WORDS / 2) : a;
        if ((hi >= INT16_MAX && any_above(a, b, INT16_MAX)) || (lo < INT16_MIN && !all_above(a, b, INT16_MIN)))
            return 0; /* what lies beyond 16 bits counts */
        k->threshold[i] = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
    }
    k->sign = s.signs ? read_signs(&s, channel) : _mm256_setzero_si256();
    k->has_signs = s.signs != NULL;
    k->count = s.count;
    read_levels(work, &s, k);
    return 1;
}

/* Less the thresholds above. */
INLINE __m256i compare(const __m256i *threshold, uint32_t count, const int16_t *at, int has_signs, __m256i sign)
{
    __m256i x = load(at), above = _mm256_setzero_si256();
    if (has_signs)
        x = _mm256_sub_epi16(_mm256_xor_si256(x, sign), sign);
    for (uint32_t i = 0; i < count; i++)
        above = _mm256_add_epi16(above, _mm256_cmpgt_epi16(threshold[i], x));
    return above;
}

/* Sixteen bytes of each of two pixels. */
INLINE __m256i levels_of(__m256i levels, __m256i a, __m256i b, int plain)
{
    const __m256i above = _mm256_packs_epi16(a, b);
    const __m256i level = plain ? _mm256_add_epi8(levels, above)
                                : _mm256_shuffle_epi8(levels, _mm256_sub_epi8(_mm256_setzero_si256(), above));
    return _mm256_permute4x64_epi64(level, 0xD8);
}

INLINE void threshold(const qxr_word_threshold *k, qxr_words x, size_t x_pitch, uint8_t *y, size_t y_pitch,
                      uint32_t pixels, uint32_t count, int has_signs, int plain)
{
    const __m256i few[FEW] = {k->threshold[0], k->threshold[1], k->threshold[2]}, sign = k->sign;
    const __m256i *t = count <= FEW ? few : k->threshold; /* in registers, if the count is a constant */
    const __m256i levels = plain ? _mm256_broadcastb_epi8(_mm256_castsi256_si128(k->levels)) : k->levels;
    uint32_t p = 0;
    UNROLL_2 for (; p + 2u <= pixels; p += 2u) {
        const __m256i a = compare(t, count, x.at + p * x_pitch, has_signs, sign);
        const __m256i b = compare(t, count, x.at + (p + 1u) * x_pitch, has_signs, sign);
        const __m256i both = levels_of(levels, a, b, plain);
        uint8_t *to = y + p * y_pitch;
        if (y_pitch == WORDS) {
            _mm256_storeu_si256((__m256i *)(void *)to, both);
        } else {
            _mm_storeu_si128((__m128i *)(void *)to, _mm256_castsi256_si128(both));
            _mm_storeu_si128((__m128i *)(void *)(to + y_pitch), _mm256_extracti128_si256(both, 1));
        }
    }
    if (p < pixels) {
        const __m256i a = compare(t, count, x.at + p * x_pitch, has_signs, sign);
        const __m256i both = levels_of(levels, a, a, plain);
        _mm_storeu_si128((__m128i *)(void *)(y + p * y_pitch), _mm256_castsi256_si128(both));
    }
}

void qxr_threshold_words(const qxr_word_threshold *k, qxr_words x, uint8_t *y, size_t pitch, uint32_t pixels)
{
    if (k->count == 1u && k->plain && !k->has_signs && x.pitch == WORDS && pitch == WORDS)
        threshold(k, x, WORDS, y, WORDS, pixels, 1, 0, 1);
    else if (k->count == 1u && k->plain && !k->has_signs)
        threshold(k, x, x.pitch, y, pitch, pixels, 1, 0, 1);
    else if (k->count == 1u && k->plain)
        threshold(k, x, x.pitch, y, pitch, pixels, 1, 1, 1);
    else if (k->count == 3u && k->plain && !k->has_signs)
        threshold(k, x, x.pitch, y, pitch, pixels, 3, 0, 1);
    else
        threshold(k, x, x.pitch, y, pitch, pixels, k->count, k->has_signs, k->plain);
}
