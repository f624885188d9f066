/* From the sums of the table look-up to results of 32 or 16 bits. */
#ifndef QXR_AVX2_TABLE_FINISH_H
#define QXR_AVX2_TABLE_FINISH_H

#include <string.h>

#include "x86/avx2_table.h"

typedef struct qxr_table_target {
    int32_t *y;     /* of the first pixel and channel of the tile */
    int16_t *words; /* or this, where all results fit */
    uint32_t first, last; /* channels of the tile */
    size_t stride;        /* elements from pixel to pixel */
} qxr_table_target;

/* 16 channels: delta[0] a + delta[1] b + sums + rest, with a and b in 16 bits. */
INLINE void combine(__m256i a, __m256i b, __m256i deltas, const int32_t *sums, __m256i rest, int32_t *y)
{
    const __m256i *add = (const __m256i *)(const void *)sums;
    const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), deltas);
    const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), deltas);
    __m256i *to = (__m256i *)(void *)y;
    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_add_epi32(low, rest), _mm256_loadu_si256(add)));
    _mm256_storeu_si256(to + 1, _mm256_add_epi32(_mm256_add_epi32(high, rest), _mm256_loadu_si256(add + 1)));
}

/* Up to 32 channels from `channel` on, of which the tile may hold some. */
static inline void finish_group(const qxr_table_layout *l, const __m256i (*sums)[2], __m256i deltas, const int32_t *add,
                         __m256i rest, const qxr_table_target *to, int32_t *y, uint32_t channel)
{
    const __m256i none = _mm256_setzero_si256();
    const uint32_t low = qxr_max(to->first, channel), high = qxr_min(to->last, channel + LANES);
    const int whole = high - low == LANES, two = l->code.planes == 2u;
    int32_t copy[LANES];
    int32_t *at = whole ? y + (channel - to->first) : copy;
    combine(sums[0][0], two ? sums[1][0] : none, deltas, add + channel, rest, at);
    combine(sums[0][1], two ? sums[1][1] : none, deltas, add + channel + LANES / 2, rest, at + LANES / 2);
    if (!whole)
        memcpy(y + (low - to->first), copy + (low - channel), (high - low) * sizeof *copy);
}

/* A narrow layer's vector: a in the lower halves of the sums, b in the upper ones; even bytes are channels 0-7. */
static inline void finish_narrow(const __m256i *sums, __m256i deltas, const int32_t *add, __m256i rest,
                                 const qxr_table_target *to, int32_t *y)
{
    const __m256i a = _mm256_permute2x128_si256(sums[0], sums[1], 0x20);
    const __m256i b = _mm256_permute2x128_si256(sums[0], sums[1], 0x31);
    const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), deltas);
    const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), deltas);
    const __m256i *more = (const __m256i *)(const void *)add;
    int32_t copy[NARROW];
    const int whole = to->last - to->first == NARROW;
    __m256i *out = (__m256i *)(void *)(whole ? y : copy);
    _mm256_storeu_si256(out, _mm256_add_epi32(_mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), rest),
                                              _mm256_loadu_si256(more)));
    _mm256_storeu_si256(out + 1, _mm256_add_epi32(_mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x31), rest),
                                                  _mm256_loadu_si256(more + 1)));
    if (!whole)
        memcpy(y, copy + to->first, (to->last - to->first) * sizeof *y);
}

/* The low halves of 16 numbers. */
static inline __m256i low_halves(const int32_t *at)
{
    const __m256i mask = _mm256_set1_epi32(0xFFFF), *from = (const __m256i *)(const void *)at;
    const __m256i a = _mm256_and_si256(_mm256_loadu_si256(from), mask);
    const __m256i b = _mm256_and_si256(_mm256_loadu_si256(from + 1), mask);
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
}

/* 16 channels: delta[0] a + delta[1] b + rest; what is above 16 bits falls away in the end. */
INLINE __m256i weigh(const __m256i *delta, __m256i a, __m256i b, __m256i rest, int two)
{
    const __m256i v = _mm256_add_epi16(_mm256_mullo_epi16(a, delta[0]), rest);
    return two ? _mm256_add_epi16(v, _mm256_mullo_epi16(b, delta[1])) : v;
}

static inline void store_words(int16_t *y, __m256i v) { _mm256_storeu_si256((__m256i *)(void *)y, v); }

/* A narrow layer's vector. */
INLINE void finish_narrow_words(const __m256i *sums, const __m256i *delta, __m256i add, __m256i rest, int16_t *y,
                                int two)
{
    const __m256i a = _mm256_permute2x128_si256(sums[0], sums[1], 0x20), more = _mm256_add_epi16(rest, add);
    const __m256i b = _mm256_permute2x128_si256(sums[0], sums[1], 0x31);
    store_words(y, two ? weigh(delta, a, b, more, 1) : weigh(delta, _mm256_add_epi16(a, b), b, more, 0));
}

/* 32 channels, or the half of them that the tile holds: bit i of `halves`. */
INLINE void finish_words(const __m256i (*sums)[2], const __m256i *delta, const __m256i *add, __m256i rest,
                         uint32_t halves, int16_t *y, int two)
{
    const __m256i a = _mm256_permute4x64_epi64(weigh(delta, sums[0][0], sums[two][0], rest, two), 0xD8);
    const __m256i b = _mm256_permute4x64_epi64(weigh(delta, sums[0][1], sums[two][1], rest, two), 0xD8);
    if (halves & 1u)
        store_words(y, _mm256_add_epi16(a, add[0]));
    if (halves & 2u)
        store_words(y + LANES / 2, _mm256_add_epi16(b, add[1]));
}

#endif
