/* Weights for the table look-up: rows of codes to patterns of four, 32 channels side by side. */
#include "x86/avx2_table.h"

#include <string.h>

qxr_table_coding qxr_table_coding_of(const qxr_conv *conv)
{
    const int32_t *book = conv->weights.codebook;
    qxr_table_coding k = {0, {0, 0}, 0};
    if (!book) { /* two's complement */
        k.delta[0] = 1;
        k.delta[1] = -2;
        k.planes = conv->weights.bits == 2u ? 2u : 0u;
        return k;
    }
    if (conv->weight_peak > 8191u || conv->weights.entries < 2u || conv->weights.entries > 4u)
        return k; /* the deltas have to fit 16 bits */
    k.lowest = book[0];
    k.delta[0] = book[1] - book[0];
    k.planes = 1;
    if (conv->weights.entries == 2u)
        return k;
    k.delta[1] = book[2] - book[0];
    k.planes = conv->weights.entries == 3u ? (k.delta[1] == 2 * k.delta[0] ? 2u : 0u)
                                           : (book[3] - book[2] == k.delta[0] ? 2u : 0u);
    return k;
}

qxr_table_layout qxr_table_plan(const qxr_conv *conv)
{
    const qxr_op *op = conv->op;
    const int joined = op->dilation[1] == 1u;
    qxr_table_layout l;
    l.code = qxr_table_coding_of(conv);
    l.quads = conv->in->extent[0] / QUAD;
    l.outer = op->window[0];
    l.inner = joined ? 1u : op->window[1];
    l.steps = joined ? l.quads * op->window[1] : l.quads;
    l.narrow = conv->out->extent[0] <= NARROW;
    l.vectors = l.narrow ? 1u : ((conv->out->extent[0] - 1u) / LANES + 1u) * l.code.planes;
    l.copies = l.narrow && l.code.planes == 1u;
    l.bits = qxr_table_bits_suit(conv, &l);
    l.symmetric = l.bits && qxr_table_is_symmetric(&l);
    l.quad_bytes = l.copies || l.bits ? ENTRY_BYTES : sizeof(uint16_t);
    if (l.copies)
        l.steps = (l.steps + 1u) / 2u;
    l.vector_bytes = (size_t)l.outer * l.inner * l.steps * LANES;
    l.sums = QXR_PACK_HEAD + l.vectors * l.vector_bytes;
    l.runs = l.sums + qxr_round_up(conv->out->extent[0], LANES) * sizeof(int32_t);
    /* Full at the earliest where every weight of some channel has the bit and all inputs are the largest. */
    l.most_runs = l.outer * l.inner * l.steps / (255u / (QUAD * qxr_max(conv->input_peak, 1u))) + 1u;
    l.bytes = l.runs + (size_t)((l.vectors - 1u) / WIDEST + 1u) * l.most_runs * sizeof(uint16_t);
    return l;
}

/* Lanes of 16 bits are widened by interleaving them, which takes lanes 0-3 and 8-11 first. Even bytes are the first 16
 * channels, odd ones the others. */
static uint32_t channel_at(uint32_t lane)
{
    const uint32_t i = lane / 2u;
    return i % 4u + i / 8u * 4u + i / 4u % 2u * 8u + lane % 2u * 16u;
}

enum { RUN = 320 /* quads at a time: whole bytes of every coding */ };

/* The patterns of some channels; quads before the channels are transposed. Eight bytes are written where five count. */
typedef struct patterns {
    uint8_t plane[MOST_PLANES][LANES][RUN + 8];
} patterns;

static uint32_t even_bits(uint32_t byte)
{
    byte &= 0x55u;
    byte = (byte | byte >> 1) & 0x33u;
    return (byte | byte >> 2) & 0x0Fu;
}

/* Five codes of 0 to 2 to a byte: their low bits in the lower half of the entry, their high bits in the upper one. */
static void fill_base3(uint64_t *entries)
{
    for (uint32_t byte = 0; byte < 243u; byte++) {
        uint64_t low = 0, high = 0;
        uint32_t rest = byte;
        for (uint32_t i = 0; i < 5u; i++, rest /= 3u) {
            low |= (uint64_t)(rest % 3u & 1u) << i;
            high |= (uint64_t)(rest % 3u >> 1) << i;
        }
        entries[byte] = low | high << 32;
    }
}

/* Five halves of bytes to five bytes. */
static inline uint64_t spread_halves(uint64_t x)
{
    x = (x & 0xFFu) | (x & 0xFF00u) << 8 | (x & 0xF0000u) << 16;
    return (x & 0x000F000F000Fu) | (x & 0x00F000F000F0u) << 4;
}

/* Four bytes, 20 codes, five quads at a time. */
static void base3_patterns(const uint8_t *row, uint32_t count, const uint64_t *entries, uint8_t *low, uint8_t *high)
{
    const uint32_t bytes = (count * QUAD + 4u) / 5u;
    for (uint32_t i = 0, b = 0; i < count; i += 5u, b += 4u) {
        uint64_t codes = 0, a, c;
        for (uint32_t k = 0; k < 4u && b + k < bytes; k++)
            codes |= entries[row[b + k]] << (5u * k);
        a = spread_halves(codes & 0xFFFFFu);
        c = spread_halves(codes >> 32);
        memcpy(low + i, &a, sizeof a);
        memcpy(high + i, &c, sizeof c);
    }
}

/* Quads first .. first + count - 1 of a channel, first a multiple of RUN. */
static void read_patterns(const qxr_weights *w, uint32_t channel, uint32_t first, uint32_t count,
                          const uint64_t *entries, patterns *to)
{
    const uint8_t *row = w->rows + (size_t)(channel * w->row_bytes);
    uint8_t *low = to->plane[0][channel % LANES], *high = to->plane[1][channel % LANES];
    if (w->base3) {
        base3_patterns(row + first * QUAD / 5u, count, entries, low, high);
    } else if (w->bits == 1u) {
        row += first / 2u;
        for (uint32_t i = 0; i < count; i++)
            low[i] = row[i / 2u] >> (i % 2u * 4u) & 15u;
    } else {
        row += first;
        for (uint32_t i = 0; i < count; i++) {
            low[i] = (uint8_t)even_bits(row[i]);
            high[i] = (uint8_t)even_bits((uint32_t)row[i] >> 1);
        }
    }
}

/* 16 x 16 bytes: each round interleaves the first half of the rows with the second. */
static void transpose(__m128i *rows)
{
    __m128i next[16];
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) {
            next[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 8]);
            next[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 8]);
        }
        memcpy(rows, next, sizeof next);
    }
}

/* One plane to its vectors, `step` bytes apart. */
static void write_vectors(uint8_t (*plane)[RUN + 8], uint32_t count, uint8_t *to, size_t step)
{
    for (uint32_t half = 0; half < 2u; half++)
        for (uint32_t i = 0; i < count; i += 16u) {
            __m128i rows[16];
            for (uint32_t lane = 0; lane < 16u; lane++)
                rows[lane] = _mm_loadu_si128((const __m128i *)(const void *)(plane[channel_at(half * 16u + lane)] + i));
            transpose(rows);
            for (uint32_t k = 0; k < 16u && i + k < count; k++)
                _mm_storeu_si128((__m128i *)(void *)(to + (i + k) * step + half * 16u), rows[k]);
        }
}

static uint32_t count_bits(const uint8_t *pattern, uint32_t count)
{
    static const uint8_t bits[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    uint32_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += bits[pattern[i]];
    return sum;
}

/* Up to 32 channels, all planes. */
static void pack_group(const qxr_conv *conv, const qxr_table_layout *l, const uint64_t *entries, uint32_t group,
                       uint8_t *weights, int32_t *sums)
{
    const uint32_t quads = conv->row / QUAD, channels = qxr_min(LANES, conv->out->extent[0] - group * LANES);
    patterns found;
    memset(&found, 0, sizeof found);
    for (uint32_t first = 0; first < quads; first += RUN) {
        const uint32_t count = qxr_min(RUN, quads - first);
        for (uint32_t c = 0; c < channels; c++) {
            const uint32_t o = group * LANES + c;
            read_patterns(&conv->weights, o, first, count, entries, &found);
            for (uint32_t plane = 0; plane < l->code.planes && conv->base; plane++)
                sums[o] += l->code.delta[plane] * (int32_t)count_bits(found.plane[plane][c], count);
        }
        for (uint32_t plane = 0; plane < l->code.planes; plane++) {
            const uint32_t vector = group * l->code.planes + plane, block = vector / WIDEST;
            const size_t step = qxr_min(WIDEST, l->vectors - block * WIDEST) * LANES;
            uint8_t *to = weights + block * WIDEST * l->vector_bytes + first * step + vector % WIDEST * LANES;
            write_vectors(found.plane[plane], count, to, step);
        }
    }
    for (uint32_t c = 0; c < channels && conv->base; c++) {
        int32_t *sum = sums + group * LANES + c;
        *sum = qxr_wrap_mul(conv->base, *sum + l->code.lowest * (int32_t)conv->row);
    }
}

/* Narrow layers: one vector; its halves hold the two planes, or the even and the odd steps of the one plane. */
static void pack_narrow(const qxr_conv *conv, const qxr_table_layout *l, uint8_t *weights, int32_t *sums)
{
    const uint32_t length = conv->row / (l->outer * l->inner);
    const int32_t *book = conv->weights.codebook;
    for (uint32_t o = 0; o < conv->out->extent[0]; o++)
        for (uint32_t k = 0; k < conv->row; k++) {
            const uint32_t segment = k / length, step = k % length / QUAD;
            int32_t code;
            qxr_weight_codes(&conv->weights, o, k, 1, &code);
            for (uint32_t plane = 0; plane < l->code.planes; plane++) {
                const uint32_t half = l->code.planes == 2u ? plane : step % 2u;
                const size_t vector = (size_t)segment * l->steps + step / (3u - l->code.planes);
                uint8_t *at = weights + vector * LANES + half * NARROW + o % 8u * 2u + o / 8u;
                *at = (uint8_t)(*at | ((uint32_t)code >> plane & 1u) << (k % QUAD));
            }
            sums[o] = qxr_wrap_add(sums[o], qxr_wrap_mul(conv->base, book ? book[code] : code));
        }
}

/* How many steps of one block fit 8 bits, again and again; the last run has no end. */
static void find_runs(const qxr_table_layout *l, uint32_t input_peak, const uint8_t *weights, uint32_t width,
                      uint16_t *runs)
{
    static const uint8_t bits[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    const __m256i all_bits = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)bits));
    const __m256i *w = (const __m256i *)(const void *)weights;
    const uint32_t steps = l->outer * l->inner * l->steps;
    __m256i most[WIDEST];
    uint32_t run = 0;
    memset(most, 0, sizeof most);
    for (uint32_t i = 0; i < steps; i++, run++, w += width) {
        __m256i step[WIDEST], full = _mm256_setzero_si256();
        for (uint32_t v = 0; v < width; v++) {
            const __m256i one = _mm256_shuffle_epi8(all_bits, _mm256_load_si256(w + v));
            step[v] = _mm256_setzero_si256();
            for (uint32_t k = 0; k < input_peak; k++)
                step[v] = _mm256_add_epi8(step[v], one);
            const __m256i saturated = _mm256_adds_epu8(most[v], step[v]), sum = _mm256_add_epi8(most[v], step[v]);
            full = _mm256_or_si256(full, _mm256_xor_si256(saturated, sum));
        }
        if (!_mm256_testz_si256(full, full) || run == UINT16_MAX) {
            *runs++ = (uint16_t)run;
            run = 0;
            memset(most, 0, sizeof most);
        }
        for (uint32_t v = 0; v < width; v++)
            most[v] = _mm256_add_epi8(most[v], step[v]);
    }
    *runs = UINT16_MAX;
}

/* What entries of both signs are too large by. */
static void take_offsets(const qxr_conv *conv, const qxr_table_layout *l, int32_t *sums)
{
    const int32_t offset = qxr_wrap_mul(l->code.delta[0] / 2, (int32_t)conv->row);
    for (uint32_t o = 0; o < conv->out->extent[0]; o++)
        sums[o] = qxr_wrap_add(sums[o], -offset);
}

void qxr_table_pack(const qxr_conv *conv, uint8_t *packed)
{
    const qxr_table_layout l = qxr_table_plan(conv);
    int32_t *sums = (int32_t *)(void *)(packed + l.sums);
    uint16_t *runs = (uint16_t *)(void *)(packed + l.runs);
    uint8_t *weights = packed + QXR_PACK_HEAD;
    uint64_t entries[243];
    if (conv->weights.base3)
        fill_base3(entries);
    memset(sums, 0, l.bytes - l.sums);
    if (l.narrow) {
        memset(weights, 0, l.sums - QXR_PACK_HEAD);
        pack_narrow(conv, &l, weights, sums);
    }
    for (uint32_t group = 0; group < l.vectors / l.code.planes && !l.narrow; group++)
        pack_group(conv, &l, entries, group, weights, sums);
    for (uint32_t v = 0; v < l.vectors; v += WIDEST, runs += l.most_runs)
        find_runs(&l, conv->input_peak, weights + v * l.vector_bytes, qxr_min(WIDEST, l.vectors - v), runs);
    if (l.symmetric)
        take_offsets(conv, &l, sums);
}
