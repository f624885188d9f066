/* Maximum and sum over windows with AVX2: eight channels at a time, and bytes straight from the arena to the arena. */
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

/* From here on: maxima of bytes that become bytes of the same base, with no tile between. */

enum { WIDE = 32, HALF = 16, QUARTER = 8 /* bytes at a time */ };

/* Some channels under the first tap of a window, and where their maxima go; by value, as bytes that are stored might
 * change what a pointer shows. */
typedef struct taps {
    const uint8_t *first;
    size_t row, column; /* bytes from tap to tap */
    uint8_t *to;
    uint32_t channels;
} taps;

INLINE __m128i load_few(const uint8_t *at, uint32_t bytes)
{
    if (bytes == QUARTER)
        return _mm_loadl_epi64((const __m128i *)(const void *)at);
    return _mm_loadu_si128((const __m128i *)(const void *)at);
}

INLINE void join_wide(taps t, uint32_t channel, uint32_t rows, uint32_t columns)
{
    __m256i joined = _mm256_setzero_si256();
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < columns; c++) {
            const uint8_t *at = t.first + r * t.row + c * t.column + channel;
            joined = _mm256_max_epu8(joined, _mm256_loadu_si256((const __m256i *)(const void *)at));
        }
    _mm256_storeu_si256((__m256i *)(void *)(t.to + channel), joined);
}

INLINE void join_few(taps t, uint32_t channel, uint32_t rows, uint32_t columns, uint32_t bytes)
{
    __m128i joined = _mm_setzero_si128();
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < columns; c++)
            joined = _mm_max_epu8(joined, load_few(t.first + r * t.row + c * t.column + channel, bytes));
    if (bytes == QUARTER)
        _mm_storel_epi64((__m128i *)(void *)(t.to + channel), joined);
    else
        _mm_storeu_si128((__m128i *)(void *)(t.to + channel), joined);
}

static void join_each(taps t, uint32_t rows, uint32_t columns)
{
    for (uint32_t i = 0; i < t.channels; i++) {
        uint8_t most = 0;
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t c = 0; c < columns; c++) {
                const uint8_t value = t.first[r * t.row + c * t.column + i];
                most = value > most ? value : most;
            }
        t.to[i] = most;
    }
}

/* What is left of whole vectors is done with the last channels of the tile, some of them a second time. */
INLINE void join_window(taps t, uint32_t rows, uint32_t columns)
{
    const uint32_t channels = t.channels;
    if (channels >= WIDE) {
        for (uint32_t c = 0; c + WIDE <= channels; c += WIDE)
            join_wide(t, c, rows, columns);
        if (channels % WIDE)
            join_wide(t, channels - WIDE, rows, columns);
    } else if (channels >= HALF) {
        join_few(t, 0, rows, columns, HALF);
        if (channels > HALF)
            join_few(t, channels - HALF, rows, columns, HALF);
    } else if (channels >= QUARTER) {
        join_few(t, 0, rows, columns, QUARTER);
        if (channels > QUARTER)
            join_few(t, channels - QUARTER, rows, columns, QUARTER);
    } else {
        join_each(t, rows, columns);
    }
}

/* Taps inside the image along one axis, as qxr_taps_inside gives them; most windows lie inside it as a whole. */
static inline uint32_t taps_inside(const qxr_op *op, uint32_t axis, uint32_t at, uint32_t extent, uint32_t *first)
{
    const uint32_t window = op->window[axis];
    *first = qxr_input_at(op, axis, at, 0);
    if (*first < extent && qxr_input_at(op, axis, at, window - 1u) < extent)
        return window;
    return qxr_taps_inside(op, axis, at, extent, first);
}

static void pool_row(const qxr_op *op, const qxr_tensor *in, const uint8_t *row, uint32_t rows, uint32_t column,
                     uint32_t columns, taps t, size_t pitch)
{
    const size_t channels = in->extent[0];
    for (uint32_t x = column; x < column + columns; x++, t.to += pitch) {
        uint32_t first;
        const uint32_t inside = taps_inside(op, 1, x, in->extent[2], &first);
        t.first = row + first * channels;
        if (rows == 3u && inside == 3u)
            join_window(t, 3, 3);
        else if (rows == 2u && inside == 2u)
            join_window(t, 2, 2);
        else
            join_window(t, rows, inside);
    }
}

int qxr_avx2_pool_bytes(const qxr_chain *chain, const qxr_tile *tile)
{
    const qxr_op *op = qxr_get_op(chain->model, chain->group);
    const qxr_tensor *out = qxr_get_tensor(chain->model, qxr_get_header(chain->model)->input_count + chain->group);
    const qxr_tensor *in = qxr_get_tensor(chain->model, op->input[0]);
    const uint32_t width = out->extent[2], end = tile->pixel + tile->pixels;
    taps t;
    if (op->opcode != QXR_MAX_POOL || chain->first < chain->end || qxr_storage(in) != QXR_U8 ||
        qxr_storage(out) != QXR_U8 || qxr_base(in) != qxr_base(out))
        return 0;
    t.row = (size_t)op->dilation[0] * in->extent[2] * in->extent[0];
    t.column = (size_t)op->dilation[1] * in->extent[0];
    t.to = chain->arena + out->arena_offset + (size_t)tile->pixel * out->extent[0] + tile->channel;
    t.channels = tile->channels;
    for (uint32_t pixel = tile->pixel, count; pixel < end; pixel += count) {
        const uint32_t column = pixel % width;
        uint32_t first;
        const uint32_t rows = taps_inside(op, 0, pixel / width, in->extent[1], &first);
        const uint8_t *row = chain->arena + in->arena_offset + (size_t)first * in->extent[2] * in->extent[0];
        count = qxr_min(width - column, end - pixel);
        pool_row(op, in, row + tile->channel, rows, column, count, t, out->extent[0]);
        t.to += (size_t)count * out->extent[0];
    }
    return 1;
}
