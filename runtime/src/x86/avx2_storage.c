/* Tiles between the arena and the slots with AVX2. */
#include "vector/storage.h"
#include "x86/avx2_lanes.h"

static size_t load_vectors(const qxr_tensor *tensor, const uint8_t *at, size_t count, int32_t *x)
{
    const __m256i base = _mm256_set1_epi32(qxr_base(tensor));
    size_t i = 0;
    if (qxr_storage(tensor) == QXR_U8) {
        for (; i + LANES <= count; i += LANES) {
            const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(at + i));
            _mm256_storeu_si256((__m256i *)(void *)(x + i), _mm256_add_epi32(_mm256_cvtepu8_epi32(bytes), base));
        }
    } else if (qxr_storage(tensor) == QXR_I16) {
        for (; i + LANES <= count; i += LANES) {
            const __m128i words = _mm_loadu_si128((const __m128i *)(const void *)(at + 2u * i));
            _mm256_storeu_si256((__m256i *)(void *)(x + i), _mm256_cvtepi16_epi32(words));
        }
    }
    return i;
}

void qxr_avx2_load(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, int32_t *x)
{
    qxr_load_tile(tensor, data, tile, load_vectors, x);
}

/* The low bits of each lane, whatever the others: what a store in portable C keeps. */
static inline __m128i narrow(__m256i v, __m256i mask)
{
    const __m256i low = _mm256_and_si256(v, mask);
    return _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
}

static size_t store_vectors(const qxr_tensor *tensor, uint8_t *at, size_t count, const int32_t *y)
{
    const __m256i base = _mm256_set1_epi32(qxr_base(tensor));
    size_t i = 0;
    if (qxr_storage(tensor) == QXR_U8) {
        const __m256i mask = _mm256_set1_epi32(0xFF);
        for (; i + 2u * LANES <= count; i += 2u * LANES) {
            const __m256i a = _mm256_sub_epi32(load_lanes(y + i, LANES), base);
            const __m256i b = _mm256_sub_epi32(load_lanes(y + i + LANES, LANES), base);
            _mm_storeu_si128((__m128i *)(void *)(at + i), _mm_packus_epi16(narrow(a, mask), narrow(b, mask)));
        }
    } else if (qxr_storage(tensor) == QXR_I16) {
        const __m256i mask = _mm256_set1_epi32(0xFFFF);
        for (; i + LANES <= count; i += LANES)
            _mm_storeu_si128((__m128i *)(void *)(at + 2u * i), narrow(load_lanes(y + i, LANES), mask));
    }
    return i;
}

void qxr_avx2_store(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, const int32_t *y)
{
    qxr_store_tile(tensor, data, tile, store_vectors, y);
}
