/* Eight 32-bit lanes of a tile, fewer at the end of its channels. */
#ifndef QXR_AVX2_LANES_H
#define QXR_AVX2_LANES_H

#include <immintrin.h>

#include "x86/avx2.h"
#include "x86/avx2_loops.h"

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

static inline __m256i load_words(const int16_t *at)
{
    return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
}

static inline void store_lanes(int32_t *at, uint32_t count, __m256i v)
{
    if (count >= LANES)
        _mm256_storeu_si256((__m256i *)(void *)at, v);
    else
        _mm256_maskstore_epi32((int *)at, lanes_below(count), v);
}

/* Elementwise operators take a tile by columns of eight channels: what a column needs is read once, then it is applied
 * to some pixels. Whole columns have eight lanes. */
enum { HELD_STEPS = 3 /* steps whose thresholds stay in registers */ };

/* Where a column's pixels lie: elements from one to the next are `from_pitch` and `to_pitch`. */
typedef struct qxr_span {
    const int32_t *from;
    int32_t *to;
    size_t from_pitch, to_pitch;
    uint32_t pixels;
    const int16_t *words; /* for a rescale of a whole column: read instead of `from`, or null */
} qxr_span;

/* Calls f(span, from pitch, to pitch, ...) with constants where the pixels are neighbours. */
#define WITH_PITCH(f, s, ...)                                                  \
    ((s)->from_pitch == LANES && (s)->to_pitch == LANES ? f(s, LANES, LANES, __VA_ARGS__) \
                                                        : f(s, (s)->from_pitch, (s)->to_pitch, __VA_ARGS__))

typedef struct qxr_threshold_column {
    const int32_t *thresholds; /* [count][stride] */
    size_t stride;
    __m256i held[HELD_STEPS];
    __m256i sign;              /* -1 where the channel's sign is -1, else 0 */
    __m256i first, step, table;
    qxr_steps steps;
    uint32_t lanes;
} qxr_threshold_column;

void qxr_read_threshold(const qxr_work *work, const qxr_tile *tile, uint32_t c, uint32_t lanes,
                        qxr_threshold_column *k);
void qxr_apply_threshold(const qxr_threshold_column *k, const qxr_span *span);

/* Levels less `base` as bytes, `pitch` from pixel to pixel, for whole columns; only if it returns that it can. */
int qxr_has_byte_threshold(const qxr_threshold_column *k);
void qxr_apply_byte_threshold(const qxr_threshold_column *k, const qxr_span *span, int32_t base, uint8_t *to,
                              size_t pitch);

/* Parameters of eight channels for their even and odd lanes, which are multiplied separately. */
typedef struct qxr_rescale_column {
    __m256i multiplier[2], addend[2]; /* of the even channels, with the odd ones above them; of the odd ones */
    uint32_t shift, lanes;
    int32_t lo, hi;
    int fits; /* the shifted result of every input fits 32 bits, before it is clamped */
} qxr_rescale_column;

void qxr_read_rescale(const qxr_work *work, const qxr_tile *tile, uint32_t c, uint32_t lanes, qxr_rescale_column *k);
void qxr_apply_rescale(const qxr_rescale_column *k, const qxr_span *span);

/* Biases of pixels from `pixel` on, channels `channel` to `channel + lanes - 1`. */
void qxr_apply_border_bias(const qxr_work *work, uint32_t pixel, uint32_t channel, uint32_t lanes,
                           const qxr_span *span);

#endif
