/* Chains that end in few thresholds and bytes: eight channels of four pixels stay in registers from what a convolution
 * has made to the bytes of the arena. */
#include "x86/avx2_chain_bytes.h"

#include <string.h>

#include "x86/avx2_lanes.h"

/* The second summand: none, biases of the border, bytes times a number, values that are rescaled with a shift, or a
 * stream of 32 bits within bounds, whose sum is kept as well. */
enum { NOTHING, BIAS, BYTES, BYTES_SHIFTED, WORDS_SHIFTED, STREAM };

/* (x multiplier + addend) >> shift for even and odd channels, which are multiplied separately. The results fit 32 bits,
 * so the sign that a logical shift loses is not missed. */
typedef struct shifted {
    __m256i multiplier[2], addend[2];
    __m128i shift, rest; /* rest: 32 - shift */
} shifted;

/* Constants of eight channels. */
typedef struct column {
    shifted made, other;
    __m256i times, more; /* of what was made, and a bias is added to; `times` also of bytes that are added */
    __m256i lo, hi;      /* of a stream */
    __m256i threshold[HELD_STEPS];
    __m256i sign, top;   /* bytes, as two packs order them: -1 where the sign is; the level with no threshold above */
} column;

/* Where eight channels of the first pixel lie, and bytes from pixel to pixel. */
typedef struct place {
    uint8_t *at;
    size_t pitch;
} place;

/* What was made, what is added, a sum that is kept, the bytes; what is not used lies anywhere. */
typedef struct places {
    place made, other, kept, y;
} places;

static void advance(place *p, size_t pixels) { p->at += pixels * p->pitch; }

INLINE __m256i rescaled(const shifted *k, __m256i x)
{
    const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(x, k->multiplier[0]), k->addend[0]);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(x, 32), k->multiplier[1]), k->addend[1]);
    return _mm256_blend_epi32(_mm256_srl_epi64(even, k->shift), _mm256_sll_epi64(odd, k->rest), 0xAA);
}

INLINE __m256i load_bytes(const uint8_t *at)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
}

INLINE __m256i load_within(const column *k, const uint8_t *at)
{
    const __m256i x = load_lanes((const int32_t *)(const void *)at, LANES);
    return _mm256_min_epi32(_mm256_max_epi32(x, k->lo), k->hi);
}

/* Less the thresholds above the sum. */
INLINE __m256i compare(const column *k, const places *at, size_t pixel, int is_words, int second, uint32_t steps)
{
    const uint8_t *made = at->made.at + pixel * at->made.pitch, *other = at->other.at + pixel * at->other.pitch;
    const __m256i x = is_words ? load_words((const int16_t *)(const void *)made)
                               : load_lanes((const int32_t *)(const void *)made, LANES);
    __m256i sum, above;
    if (second == NOTHING)
        sum = x;
    else if (second == BIAS)
        sum = _mm256_add_epi32(_mm256_mullo_epi32(x, k->times), k->more);
    else if (second == BYTES)
        sum = _mm256_add_epi32(rescaled(&k->made, x), _mm256_mullo_epi32(load_bytes(other), k->times));
    else if (second == BYTES_SHIFTED)
        sum = _mm256_add_epi32(rescaled(&k->made, x), rescaled(&k->other, load_bytes(other)));
    else if (second == WORDS_SHIFTED)
        sum = _mm256_add_epi32(rescaled(&k->made, x),
                               rescaled(&k->other, load_words((const int16_t *)(const void *)other)));
    else
        sum = _mm256_add_epi32(rescaled(&k->made, x), load_within(k, other));
    if (second == STREAM)
        store_lanes((int32_t *)(void *)(at->kept.at + pixel * at->kept.pitch), LANES, sum);
    above = _mm256_cmpgt_epi32(k->threshold[0], sum);
    for (uint32_t i = 1; i < steps; i++)
        above = _mm256_add_epi32(above, _mm256_cmpgt_epi32(k->threshold[i], sum));
    return above;
}

/* Levels of what two packs made of comparisons. */
INLINE __m256i levels_of(const column *k, __m256i above)
{
    return _mm256_add_epi8(_mm256_sub_epi8(_mm256_xor_si256(above, k->sign), k->sign), k->top);
}

INLINE void whole_fours(const column *constants, const places *first, uint32_t pixels, int is_words, int second,
                        uint32_t steps)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const column k = *constants; /* what is stored cannot change it */
    places at = *first;
    for (; pixels >= 4u; pixels -= 4u) {
        uint8_t *y = at.y.at;
        __m256i above[4], all;
        __m128i low, high;
        UNROLL_ALL for (uint32_t i = 0; i < 4u; i++)
            above[i] = compare(&k, &at, i, is_words, second, steps);
        all = _mm256_packs_epi16(_mm256_packs_epi32(above[0], above[1]), _mm256_packs_epi32(above[2], above[3]));
        all = _mm256_permutevar8x32_epi32(levels_of(&k, all), order);
        low = _mm256_castsi256_si128(all);
        high = _mm256_extracti128_si256(all, 1);
        _mm_storel_epi64((__m128i *)(void *)y, low);
        _mm_storeh_pd((double *)(void *)(y + at.y.pitch), _mm_castsi128_pd(low));
        _mm_storel_epi64((__m128i *)(void *)(y + 2u * at.y.pitch), high);
        _mm_storeh_pd((double *)(void *)(y + 3u * at.y.pitch), _mm_castsi128_pd(high));
        advance(&at.made, 4);
        advance(&at.other, 4);
        advance(&at.kept, 4);
        advance(&at.y, 4);
    }
}

static void one_pixel(const column *k, const places *at, size_t pixel, int is_words, int second, uint32_t steps)
{
    const __m256i above = compare(k, at, pixel, is_words, second, steps), words = _mm256_packs_epi32(above, above);
    const __m256i levels = levels_of(k, _mm256_packs_epi16(words, words));
    const __m128i low = _mm256_castsi256_si128(levels), high = _mm256_extracti128_si256(levels, 1);
    _mm_storel_epi64((__m128i *)(void *)(at->y.at + pixel * at->y.pitch), _mm_unpacklo_epi32(low, high));
}

INLINE void fours_of(const column *k, const places *at, uint32_t pixels, int is_words, int second, uint32_t steps)
{
    if (steps == 1u)
        whole_fours(k, at, pixels, is_words, second, 1);
    else
        whole_fours(k, at, pixels, is_words, second, 3);
}

static void add_pixels(const column *k, const places *at, uint32_t pixels, int is_words, int second, uint32_t steps)
{
    switch (2 * second + (is_words != 0)) {
    case 2 * NOTHING:
        fours_of(k, at, pixels, 0, NOTHING, steps);
        break;
    case 2 * BIAS:
        fours_of(k, at, pixels, 0, BIAS, steps);
        break;
    case 2 * BIAS + 1:
        fours_of(k, at, pixels, 1, BIAS, steps);
        break;
    case 2 * BYTES:
        fours_of(k, at, pixels, 0, BYTES, steps);
        break;
    case 2 * BYTES + 1:
        fours_of(k, at, pixels, 1, BYTES, steps);
        break;
    case 2 * BYTES_SHIFTED:
        fours_of(k, at, pixels, 0, BYTES_SHIFTED, steps);
        break;
    case 2 * BYTES_SHIFTED + 1:
        fours_of(k, at, pixels, 1, BYTES_SHIFTED, steps);
        break;
    case 2 * WORDS_SHIFTED:
        fours_of(k, at, pixels, 0, WORDS_SHIFTED, steps);
        break;
    case 2 * WORDS_SHIFTED + 1:
        fours_of(k, at, pixels, 1, WORDS_SHIFTED, steps);
        break;
    case 2 * STREAM:
        fours_of(k, at, pixels, 0, STREAM, steps);
        break;
    default:
        fours_of(k, at, pixels, 1, STREAM, steps);
        break;
    }
    for (uint32_t i = pixels - pixels % 4u; i < pixels; i++)
        one_pixel(k, at, i, is_words, second, steps);
}

/* How many of `count` bytes are the first of them, most of a row as a rule. */
static uint32_t equal_bytes(const uint8_t *bytes, uint32_t count)
{
    uint32_t i = 1;
    for (; i + 8u <= count; i += 8u) {
        uint64_t here, before;
        memcpy(&here, bytes + i, sizeof here);
        memcpy(&before, bytes + i - 1u, sizeof before);
        if (here != before)
            break;
    }
    while (i < count && bytes[i] == bytes[0])
        i++;
    return i;
}

/* Pixels of one class after the other. */
static void add_biases(const column *constants, const qxr_work *bias, const qxr_tile *tile, uint32_t channel,
                       places at, int is_words, uint32_t steps)
{
    const qxr_tensor *out = bias->out;
    const uint32_t channels = out->extent[0], width = out->extent[2], end = tile->pixel + tile->pixels;
    const uint32_t column_classes = (uint32_t)bias->op->second;
    const int32_t *values = qxr_constants32(bias);
    const uint8_t *rows = (const uint8_t *)(values + (size_t)bias->op->first * column_classes * channels);
    const uint8_t *columns = rows + out->extent[1];
    column k = *constants;
    for (uint32_t pixel = tile->pixel, count; pixel < end; pixel += count) {
        const uint32_t x = pixel % width;
        const size_t class = (size_t)rows[pixel / width] * column_classes + columns[x];
        count = equal_bytes(columns + x, qxr_min(width - x, end - pixel));
        k.more = _mm256_add_epi32(constants->more, load_lanes(values + class * channels + channel, LANES));
        add_pixels(&k, &at, count, is_words, BIAS, steps);
        advance(&at.made, count);
        advance(&at.y, count);
    }
}

/* Constants for what is stored, which lies `base` below the operand. Without an operator the operand itself. */
static void read_rescale(const qxr_work *work, uint32_t channel, int32_t base, shifted *k)
{
    k->multiplier[0] = _mm256_set1_epi32(1);
    k->addend[0] = k->addend[1] = _mm256_setzero_si256();
    if (work->op && work->op->flags & QXR_PER_CHANNEL) {
        const int64_t *addend = (const int64_t *)(const void *)qxr_constants(work);
        const int32_t *multiplier = (const int32_t *)(addend + work->out->extent[0]);
        const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(addend + channel));
        const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(addend + channel + 4u));
        k->multiplier[0] = load_lanes(multiplier + channel, LANES);
        k->addend[0] = _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(low, high), 0xD8);
        k->addend[1] = _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(low, high), 0xD8);
    } else if (work->op) {
        const int64_t *addend = (const int64_t *)(const void *)qxr_constants(work);
        k->multiplier[0] = _mm256_set1_epi32(*(const int32_t *)(addend + 1));
        k->addend[0] = k->addend[1] = _mm256_set1_epi64x(*addend);
    }
    k->multiplier[1] = _mm256_srli_epi64(k->multiplier[0], 32);
    for (uint32_t i = 0; i < 2u && base; i++)
        k->addend[i] = _mm256_add_epi64(k->addend[i], _mm256_mul_epi32(_mm256_set1_epi32(base), k->multiplier[i]));
    k->shift = _mm_cvtsi32_si128(qxr_shift_of(work));
    k->rest = _mm_cvtsi32_si128(32 - qxr_shift_of(work));
}

/* -x >= t is the opposite of 1 - t > x, so channels of a negative sign count the thresholds 1 - t that lie above. */
static void turn_thresholds(const qxr_steps *s, uint32_t channel, uint32_t none, column *k)
{
    const __m256i one = _mm256_set1_epi32(1), least = _mm256_set1_epi32(INT32_MIN + 2);
    int32_t signs[LANES];
    __m256i sign;
    for (uint32_t i = 0; i < LANES; i++)
        signs[i] = qxr_is_negative(s, channel + i) ? -1 : 0;
    sign = load_lanes(signs, LANES);
    for (uint32_t i = 0; i < s->count; i++) {
        const __m256i turned = _mm256_sub_epi32(one, _mm256_max_epi32(k->threshold[i], least));
        k->threshold[i] = _mm256_blendv_epi8(k->threshold[i], turned, sign);
    }
    sign = _mm256_packs_epi32(sign, sign);
    k->sign = _mm256_packs_epi16(sign, sign);
    k->top = _mm256_blendv_epi8(k->top, _mm256_set1_epi8((char)none), k->sign);
}

static void read_thresholds(const qxr_work *work, const qxr_tile *tile, uint32_t c, column *k)
{
    const uint32_t none = (uint32_t)work->op->first - (uint32_t)qxr_base(work->out); /* the level at no threshold */
    const qxr_steps s = qxr_read_steps(work, tile);
    for (uint32_t i = 0; i < s.count; i++)
        k->threshold[i] = s.stride ? load_lanes(s.thresholds + i * s.stride + c, LANES)
                                   : _mm256_set1_epi32(s.thresholds[i]);
    k->sign = _mm256_setzero_si256();
    k->top = _mm256_set1_epi8((char)(none + s.count));
    if (s.signs)
        turn_thresholds(&s, tile->channel + c, none, k);
}

static place place_of(const qxr_chain *chain, const qxr_tensor *t, const qxr_tile *tile)
{
    const size_t bytes = qxr_element_bytes(t), pitch = t->extent[0] * bytes;
    const place found = {chain->arena + t->arena_offset + tile->pixel * pitch + tile->channel * bytes, pitch};
    return found;
}

static int is_per_channel(const qxr_work *work) { return work->op && work->op->flags & QXR_PER_CHANNEL; }

/* Constants of what is added to what was made; returns the form it takes. */
static int read_other(const qxr_byte_chain *found, uint32_t channel, int is_new, column *k)
{
    const int is_bytes = qxr_storage(found->other) == QXR_U8;
    const qxr_op *clip = found->rescale[1].op;
    if (found->is_stream) {
        k->lo = _mm256_set1_epi32(clip ? clip->first : INT32_MIN);
        k->hi = _mm256_set1_epi32(clip ? clip->second : INT32_MAX);
        return STREAM;
    }
    if (is_new || is_per_channel(&found->rescale[1]))
        read_rescale(&found->rescale[1], channel, is_bytes ? qxr_base(found->other) : 0, &k->other);
    if (!is_bytes)
        return WORDS_SHIFTED;
    if (qxr_shift_of(&found->rescale[1]))
        return BYTES_SHIFTED;
    /* What is added to the bytes' products joins what is added to the other ones, ahead of their shift. */
    k->times = k->other.multiplier[0];
    for (uint32_t i = 0; i < 2u; i++)
        k->made.addend[i] = _mm256_add_epi64(k->made.addend[i], _mm256_sll_epi64(k->other.addend[i], k->made.shift));
    return BYTES;
}

void qxr_run_byte_chain(const qxr_byte_chain *found, const qxr_chain *chain, const qxr_tile *tile, uint32_t channels,
                        qxr_words words)
{
    const uint32_t steps = found->threshold.op->count, bytes = words.at ? sizeof *words.at : sizeof *chain->slots;
    const int is_words = words.at != NULL;
    const place y = place_of(chain, found->threshold.out, tile);
    int32_t *slot = chain->slots + qxr_slot(found->made) * chain->elements;
    const place made = {is_words ? (uint8_t *)words.at : (uint8_t *)slot,
                        bytes * (is_words ? words.pitch : tile->channels)};
    places at = {made, made, y, y};
    column k;
    if (found->other)
        at.other = place_of(chain, found->other, tile);
    if (found->is_stream)
        at.kept = place_of(chain, found->sum.out, tile);
    for (uint32_t c = 0; c < channels; c += LANES) {
        const uint32_t channel = tile->channel + c;
        if (c == 0u || is_per_channel(&found->threshold))
            read_thresholds(&found->threshold, tile, c, &k);
        if (found->sum.op)
            read_rescale(&found->rescale[0], channel, 0, &k.made);
        if (found->other) {
            const int form = read_other(found, channel, c == 0u, &k);
            add_pixels(&k, &at, tile->pixels, is_words, form, steps);
            at.other.at += LANES * qxr_element_bytes(found->other);
            at.kept.at += LANES * sizeof(int32_t);
        } else if (found->sum.op) {
            k.times = k.made.multiplier[0];
            k.more = _mm256_blend_epi32(k.made.addend[0], _mm256_slli_epi64(k.made.addend[1], 32), 0xAA);
            add_biases(&k, &found->sum, tile, channel, at, is_words, steps);
        } else {
            add_pixels(&k, &at, tile->pixels, 0, NOTHING, steps);
        }
        at.made.at += LANES * bytes;
        at.y.at += LANES;
    }
}
