/* Maximum and sum over windows with AVX2, eight channels at a time. */
#include "vector/pool.h"
#include "x86/avx2_lanes.h"

static inline __m256i load_tap(uint32_t storage, const uint8_t *at, uint32_t lanes)
{
    if (storage == QXR_I32)
        return load_lanes((const int32_t *)(const void *)at, lanes);
    if (storage == QXR_U8) {
        uint8_t few[LANES] = {0};
        if (lanes < LANES) {
            for (uint32_t i = 0; i < lanes; i++)
                few[i] = at[i];
            at = few;
        }
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
    }
    if (lanes < LANES) {
        int32_t few[LANES] = {0};
        for (uint32_t i = 0; i < lanes; i++)
            few[i] = ((const int16_t *)(const void *)at)[i];
        return load_lanes(few, LANES);
    }
    return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
}

/* Eight channels from `channel` on; bytes are joined as bytes, their base added once a tap. */
static inline __m256i join_taps(const qxr_pool_window *w, const qxr_tensor *in, uint32_t storage, uint32_t channel,
                                uint32_t lanes, int is_max)
{
    const int32_t base = storage == QXR_U8 ? qxr_base(in) : 0;
    const uint32_t count = is_max ? 1u : w->rows * w->columns;
    __m256i joined = _mm256_set1_epi32(is_max ? INT32_MIN : 0);
    for (uint32_t r = 0; r < w->rows; r++)
        for (uint32_t c = 0; c < w->columns; c++) {
            const uint8_t *at = w->first + r * w->row + c * w->column + (size_t)channel * (1u << (storage - 1u));
            const __m256i tap = load_tap(storage, at, lanes);
            joined = is_max ? _mm256_max_epi32(joined, tap) : _mm256_add_epi32(joined, tap);
        }
    return _mm256_add_epi32(joined, _mm256_set1_epi32((int32_t)(count * (uint32_t)base)));
}

/* Maxima of 16 bytes at a time, as far as the channels go; returns how many were made. */
static uint32_t join_bytes(const qxr_pool_window *w, const qxr_tensor *in, uint32_t channel, uint32_t channels, int32_t *y)
{
    const __m256i base = _mm256_set1_epi32(qxr_base(in));
    uint32_t done = 0;
    for (; done + 16u <= channels; done += 16u) {
        __m128i joined = _mm_setzero_si128();
        for (uint32_t r = 0; r < w->rows; r++)
            for (uint32_t c = 0; c < w->columns; c++) {
                const uint8_t *at = w->first + r * w->row + c * w->column + channel + done;
                joined = _mm_max_epu8(joined, _mm_loadu_si128((const __m128i *)(const void *)at));
            }
        store_lanes(y + done, LANES, _mm256_add_epi32(_mm256_cvtepu8_epi32(joined), base));
        store_lanes(y + done + LANES, LANES, _mm256_add_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(joined, 8)), base));
    }
    return done;
}

static inline void pool_pixels(const qxr_work *work, const qxr_tile *tile, uint32_t storage, int is_max, int32_t *y)
{
    for (uint32_t p = 0; p < tile->pixels; p++) {
        const qxr_pool_window w = qxr_pool_window_at(work, tile->pixel + p);
        uint32_t c = 0;
        if (storage == QXR_U8 && is_max)
            c = join_bytes(&w, work->in[0], tile->channel, tile->channels, y);
        for (; c < tile->channels; c += LANES) {
            const uint32_t lanes = qxr_min(LANES, tile->channels - c);
            store_lanes(y + c, lanes, join_taps(&w, work->in[0], storage, tile->channel + c, lanes, is_max));
        }
        y += tile->channels;
    }
}

/* Constant arguments: a loop of its own for each storage. */
static inline void pool(const qxr_work *work, const qxr_tile *tile, int is_max, int32_t *y)
{
    switch (qxr_storage(work->in[0])) {
    case QXR_U8:
        pool_pixels(work, tile, QXR_U8, is_max, y);
        break;
    case QXR_I16:
        pool_pixels(work, tile, QXR_I16, is_max, y);
        break;
    default:
        pool_pixels(work, tile, QXR_I32, is_max, y);
        break;
    }
}

void qxr_avx2_max_pool(const qxr_work *work, const qxr_tile *tile, int32_t *y) { pool(work, tile, 1, y); }

void qxr_avx2_sum_pool(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    pool(work, tile, 0, y);
    qxr_multiply_factors(work, tile, y);
}
