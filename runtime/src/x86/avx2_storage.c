/* Tiles between the arena and the slots, and images into the arena, with AVX2. */
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

static inline __m256i twice(__m128i v) { return _mm256_broadcastsi128_si256(v); }

/* Byte i of a plane belongs at 3 i, 3 i + 1 or 3 i + 2; modulo 16 each place is taken once. So one shuffle moves
 * sixteen bytes to their places in whichever of three vectors, and blends pick from the three planes. */
static void interleave_32(const uint8_t *planes, size_t pixels, uint8_t *to)
{
    const __m256i at0 = twice(_mm_setr_epi8(0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15, 10, 5));
    const __m256i at1 = twice(_mm_setr_epi8(5, 0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15, 10));
    const __m256i at2 = twice(_mm_setr_epi8(10, 5, 0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15));
    /* Places 1, 4, ... 13 and 2, 5, ... 14. */
    const __m256i one = twice(_mm_setr_epi8(0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0));
    const __m256i two = twice(_mm_setr_epi8(0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0));
    const uint8_t *x1 = planes + pixels, *x2 = x1 + pixels;
    const __m256i a = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(const void *)planes), at0);
    const __m256i b = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(const void *)x1), at1);
    const __m256i c = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(const void *)x2), at2);
    const __m256i first = _mm256_blendv_epi8(_mm256_blendv_epi8(a, b, one), c, two);
    const __m256i second = _mm256_blendv_epi8(_mm256_blendv_epi8(b, c, one), a, two);
    const __m256i third = _mm256_blendv_epi8(_mm256_blendv_epi8(c, a, one), b, two);
    __m256i *y = (__m256i *)(void *)to;
    _mm256_storeu_si256(y, _mm256_permute2x128_si256(first, second, 0x20));
    _mm256_storeu_si256(y + 1, _mm256_blend_epi32(third, first, 0xF0));
    _mm256_storeu_si256(y + 2, _mm256_permute2x128_si256(second, third, 0x31));
}

void qxr_avx2_interleave(const uint8_t *planes, size_t pixels, uint8_t *to)
{
    size_t p = 0;
    for (; p + 32u <= pixels; p += 32u)
        interleave_32(planes + p, pixels, to + 3u * p);
    for (; p < pixels; p++)
        for (size_t c = 0; c < 3u; c++)
            to[3u * p + c] = planes[c * pixels + p];
}
