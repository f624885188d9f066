/* Eight 32-bit lanes of a tile, fewer at the end of its channels. */
#ifndef QXR_AVX2_LANES_H
#define QXR_AVX2_LANES_H

#include <immintrin.h>

#include "x86/avx2.h"

enum { LANES = 8 };

static inline __m256i lanes_below(uint32_t count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256i load_lanes(const int32_t *at, uint32_t count)
{
    if (count >= LANES)
        return _mm256_loadu_si256((const __m256i *)(const void *)at);
    return _mm256_maskload_epi32((const int *)at, lanes_below(count));
}

static inline void store_lanes(int32_t *at, uint32_t count, __m256i v)
{
    if (count >= LANES)
        _mm256_storeu_si256((__m256i *)(void *)at, v);
    else
        _mm256_maskstore_epi32((int *)at, lanes_below(count), v);
}

#endif
