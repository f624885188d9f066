/* Convolutions of weights of 1 or 2 bits and inputs up to 3, by table look-up with AVX2.
 *
 * Four inputs of neighbouring channels make a byte, and the byte names one of 256 rows of a table: what the sum of those
 * inputs times four weights of 0 or 1 is, for each of the 16 patterns of such weights. A shuffle then gives the sums of 32
 * output channels at once, whose patterns are its index. Weights are lowest + delta[0] bit0 + delta[1] bit1: each
 * bit is a plane with sums of its own, lowest times the sum of the inputs is the same for all channels.
 *
 * Sums of 8 bits are unsigned and widened to 16 before they can wrap. Packed weights are
 * [block][segment][step][vector of the block][32 patterns], vectors being [32 channels][plane]; narrow layers of up to
 * 16 channels have their two planes, or two steps of their one, in the halves of one vector. */
#include <immintrin.h>
#include <string.h>

#include "x86/avx2.h"

enum {
    QUAD = 4,              /* inputs of a step */
    LANES = 32,            /* channels of a vector */
    NARROW = 16,
    MOST_PLANES = 2,
    WIDEST = 4,            /* vectors of a block */
    MOST_ROWS = 4,         /* pixels of a product */
    MOST_INPUT = 3,
    ENTRY_BYTES = 16,
    ROWS_BYTES = 32 << 10, /* of indices that are made at a time */
    SLACK = 64
};

/* The table: entry [x][w] is the sum over i < 4 of bit i of w times bits 2 i and 2 i + 1 of x. */
#define ENTRY(x, w) ((w) & 1 ? (x) & 3 : 0) + ((w) & 2 ? (x) >> 2 & 3 : 0) + ((w) & 4 ? (x) >> 4 & 3 : 0) + ((w) & 8 ? (x) >> 6 : 0)
#define FOUR_ENTRIES(x, w) ENTRY(x, w), ENTRY(x, (w) + 1), ENTRY(x, (w) + 2), ENTRY(x, (w) + 3)
#define ROW(x) FOUR_ENTRIES(x, 0), FOUR_ENTRIES(x, 4), FOUR_ENTRIES(x, 8), FOUR_ENTRIES(x, 12)
#define FOUR_ROWS(x) ROW(x), ROW((x) + 1), ROW((x) + 2), ROW((x) + 3)
#define SIXTEEN_ROWS(x) FOUR_ROWS(x), FOUR_ROWS((x) + 4), FOUR_ROWS((x) + 8), FOUR_ROWS((x) + 12)
#define SIXTY_FOUR_ROWS(x) SIXTEEN_ROWS(x), SIXTEEN_ROWS((x) + 16), SIXTEEN_ROWS((x) + 32), SIXTEEN_ROWS((x) + 48)

static const uint8_t table[256 * ENTRY_BYTES] __attribute__((aligned(64))) = {
    SIXTY_FOUR_ROWS(0), SIXTY_FOUR_ROWS(64), SIXTY_FOUR_ROWS(128), SIXTY_FOUR_ROWS(192)};

/* How a weight follows from the bits of its code. */
typedef struct coding {
    int32_t lowest, delta[MOST_PLANES];
    uint32_t planes; /* 0: it does not follow so */
} coding;

static coding coding_of(const qxr_conv *conv)
{
    const int32_t *book = conv->weights.codebook;
    coding k = {0, {0, 0}, 0};
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

typedef struct layout {
    coding code;
    uint32_t outer, inner, steps; /* segments; steps of one */
    uint32_t quads;               /* of a pixel */
    uint32_t vectors, narrow;     /* narrow: one vector holds two planes, or two steps */
    size_t vector_bytes;          /* of all segments */
    size_t sums, bytes;           /* i32 sums[channels]: base times the sum of the weights */
} layout;

static layout plan(const qxr_conv *conv)
{
    const qxr_op *op = conv->op;
    const int joined = op->dilation[1] == 1u;
    layout l;
    l.code = coding_of(conv);
    l.quads = conv->in->extent[0] / QUAD;
    l.outer = op->window[0];
    l.inner = joined ? 1u : op->window[1];
    l.steps = joined ? l.quads * op->window[1] : l.quads;
    l.narrow = conv->out->extent[0] <= NARROW;
    l.vectors = l.narrow ? 1u : ((conv->out->extent[0] - 1u) / LANES + 1u) * l.code.planes;
    if (l.narrow && l.code.planes == 1u)
        l.steps = (l.steps + 1u) / 2u;
    l.vector_bytes = (size_t)l.outer * l.inner * l.steps * LANES;
    l.sums = QXR_PACK_HEAD + l.vectors * l.vector_bytes;
    l.bytes = l.sums + qxr_round_up(conv->out->extent[0], LANES) * sizeof(int32_t);
    return l;
}

static size_t padded_width(const qxr_conv *conv)
{
    return (size_t)conv->in->extent[2] + conv->op->padding[2] + conv->op->padding[3];
}

static size_t input_rows(const qxr_conv *conv, size_t out_rows)
{
    return (out_rows - 1u) * conv->op->stride[0] + (size_t)(conv->op->window[0] - 1u) * conv->op->dilation[0] + 1u;
}

/* Bytes of the indices and of the sum of each pixel of an input row. */
static size_t row_bytes(const qxr_conv *conv)
{
    return padded_width(conv) * (conv->in->extent[0] / QUAD * sizeof(uint16_t) + sizeof(uint32_t));
}

/* Output rows whose input rows are made at a time. */
static uint32_t chunk_rows(const qxr_conv *conv)
{
    const size_t room = ROWS_BYTES / row_bytes(conv), first = input_rows(conv, 1);
    const size_t rows = room > first ? (room - first) / conv->op->stride[0] + 1u : 1u;
    return rows < conv->out->extent[1] ? (uint32_t)rows : conv->out->extent[1];
}

static size_t scratch_size(const qxr_conv *conv)
{
    return input_rows(conv, chunk_rows(conv)) * row_bytes(conv) + SLACK;
}

/* Sums fit 16 bits signed, as the last step multiplies them so. */
static int suits(const qxr_conv *conv)
{
    const uint64_t most = (uint64_t)conv->row * conv->input_peak;
    return qxr_storage(conv->in) == QXR_U8 && conv->op->groups == 1u && conv->in->extent[0] % QUAD == 0u &&
           conv->input_peak <= MOST_INPUT && most <= 32767u && coding_of(conv).planes != 0u &&
           scratch_size(conv) <= QXR_ROWS_LIMIT;
}

static size_t packed_size(const qxr_conv *conv) { return plan(conv).bytes; }

/* Lanes of 16 bits are widened by interleaving them, which takes lanes 0-3 and 8-11 first. Even bytes are the first 16
 * channels, odd ones the others. */
static uint32_t channel_at(uint32_t lane)
{
    const uint32_t i = lane / 2u;
    return i % 4u + i / 8u * 4u + i / 4u % 2u * 8u + lane % 2u * 16u;
}

/* ---- Packing: rows of codes to patterns of four, 32 channels side by side ---- */

enum { RUN = 320 /* quads at a time: whole bytes of every coding */ };

/* The patterns of some channels; quads before the channels are transposed. */
typedef struct patterns {
    uint8_t plane[MOST_PLANES][LANES][RUN];
} patterns;

static uint32_t even_bits(uint32_t byte)
{
    byte &= 0x55u;
    byte = (byte | byte >> 1) & 0x33u;
    return (byte | byte >> 2) & 0x0Fu;
}

/* Five codes of 0 to 2 to a byte: their low bits in the lower half of the entry, their high bits in the upper one. */
static void fill_base3(uint16_t *entries)
{
    for (uint32_t byte = 0; byte < 243u; byte++) {
        uint32_t low = 0, high = 0, rest = byte;
        for (uint32_t i = 0; i < 5u; i++, rest /= 3u) {
            low |= (rest % 3u & 1u) << i;
            high |= (rest % 3u >> 1) << i;
        }
        entries[byte] = (uint16_t)(low | high << 8);
    }
}

static void base3_patterns(const uint8_t *row, uint32_t count, const uint16_t *entries, uint8_t *low, uint8_t *high)
{
    uint32_t held = 0, a = 0, b = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (held < QUAD) {
            a |= (entries[*row] & 0xFFu) << held;
            b |= (uint32_t)entries[*row++] >> 8 << held;
            held += 5u;
        }
        low[i] = a & 15u;
        high[i] = b & 15u;
        a >>= QUAD;
        b >>= QUAD;
        held -= QUAD;
    }
}

/* Quads first .. first + count - 1 of a channel, first a multiple of RUN. */
static void read_patterns(const qxr_weights *w, uint32_t channel, uint32_t first, uint32_t count,
                          const uint16_t *entries, patterns *to)
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
static void write_vectors(uint8_t (*plane)[RUN], uint32_t count, uint8_t *to, size_t step)
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
static void pack_group(const qxr_conv *conv, const layout *l, const uint16_t *entries, uint32_t group, uint8_t *weights,
                       int32_t *sums)
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
            write_vectors(found.plane[plane], count, weights + block * WIDEST * l->vector_bytes + first * step + vector % WIDEST * LANES, step);
        }
    }
    for (uint32_t c = 0; c < channels && conv->base; c++) {
        int32_t *sum = sums + group * LANES + c;
        *sum = qxr_wrap_mul(conv->base, *sum + l->code.lowest * (int32_t)conv->row);
    }
}

/* Narrow layers: one vector; its halves hold the two planes, or the even and the odd steps of the one plane. */
static void pack_narrow(const qxr_conv *conv, const layout *l, uint8_t *weights, int32_t *sums)
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
                uint8_t *at = weights + ((size_t)segment * l->steps + step / (3u - l->code.planes)) * LANES + half * NARROW + o;
                *at = (uint8_t)(*at | ((uint32_t)code >> plane & 1u) << (k % QUAD));
            }
            sums[o] = qxr_wrap_add(sums[o], qxr_wrap_mul(conv->base, book ? book[code] : code));
        }
}

static void pack(const qxr_conv *conv, uint8_t *packed)
{
    const layout l = plan(conv);
    int32_t *sums = (int32_t *)(void *)(packed + l.sums);
    uint16_t entries[243];
    if (conv->weights.base3)
        fill_base3(entries);
    memset(sums, 0, l.bytes - l.sums);
    if (l.narrow) {
        memset(packed + QXR_PACK_HEAD, 0, l.sums - QXR_PACK_HEAD);
        pack_narrow(conv, &l, packed + QXR_PACK_HEAD, sums);
        return;
    }
    for (uint32_t group = 0; group < l.vectors / l.code.planes; group++)
        pack_group(conv, &l, entries, group, packed + QXR_PACK_HEAD, sums);
}

/* ---- Inputs to indices ---- */

/* Offsets of table rows, and the sum of each pixel, for some input rows. */
typedef struct index_rows {
    uint16_t *index;      /* [row][column][quad] */
    uint32_t *sum;        /* [row][column] */
    uint32_t first_out_row, width;
} index_rows;

/* 16 offsets from 64 inputs. */
static inline __m256i offsets(__m256i a, __m256i b)
{
    const __m256i pairs = _mm256_set1_epi16(1 | 4 << 8), quads = _mm256_set1_epi32(ENTRY_BYTES | 16 * ENTRY_BYTES << 16);
    a = _mm256_madd_epi16(_mm256_maddubs_epi16(a, pairs), quads);
    b = _mm256_madd_epi16(_mm256_maddubs_epi16(b, pairs), quads);
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
}

/* Writes, as it reads, up to 64 elements behind the last. */
static void index_run(const uint8_t *x, size_t count, uint16_t *to)
{
    for (size_t i = 0; i < count; i += 64u) {
        const __m256i *at = (const __m256i *)(const void *)(x + i);
        _mm256_storeu_si256((__m256i *)(void *)(to + i / QUAD), offsets(_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)));
    }
}

static uint32_t sum_bytes(const uint8_t *x, uint32_t count)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i sum = zero;
    uint32_t i = 0, rest = 0;
    for (; i + 16u <= count; i += 16u)
        sum = _mm_add_epi32(sum, _mm_sad_epu8(_mm_loadu_si128((const __m128i *)(const void *)(x + i)), zero));
    for (; i < count; i++)
        rest += x[i];
    return rest + (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_srli_si128(sum, 8)));
}

static void fill_pixels(const qxr_conv *conv, size_t pixels, uint16_t *index, uint32_t *sum)
{
    const uint32_t zero = (uint32_t)-conv->base, quads = conv->in->extent[0] / QUAD;
    for (size_t i = 0; i < pixels * quads; i++)
        index[i] = (uint16_t)(zero * 0x55u * ENTRY_BYTES);
    for (size_t i = 0; i < pixels; i++)
        sum[i] = zero * conv->in->extent[0];
}

static void index_row(const qxr_conv *conv, const uint8_t *input, uint32_t row, int sums, uint16_t *index, uint32_t *sum)
{
    const uint32_t channels = conv->in->extent[0], width = conv->in->extent[2], quads = channels / QUAD;
    const uint32_t left = conv->op->padding[2], right = conv->op->padding[3];
    const uint8_t *from = input + (size_t)row * width * channels;
    if (row >= conv->in->extent[1]) {
        fill_pixels(conv, padded_width(conv), index, sum);
        return;
    }
    fill_pixels(conv, left, index, sum);
    index_run(from, (size_t)width * channels, index + (size_t)left * quads);
    for (uint32_t x = 0; x < width && sums; x++)
        sum[left + x] = sum_bytes(from + (size_t)x * channels, channels);
    fill_pixels(conv, right, index + (size_t)(left + width) * quads, sum + left + width);
}

static index_rows index_inputs(const qxr_conv *conv, const qxr_conv_buffers *buffers, int sums, uint32_t pixel,
                               uint32_t pixels)
{
    const uint32_t width = conv->out->extent[2], first = pixel / width, last = (pixel + pixels - 1u) / width;
    const size_t rows = input_rows(conv, last - first + 1u), pitch = padded_width(conv);
    const uint32_t quads = conv->in->extent[0] / QUAD;
    index_rows r;
    r.sum = (uint32_t *)(void *)buffers->scratch;
    r.index = (uint16_t *)(void *)(buffers->scratch + rows * pitch * sizeof *r.sum);
    r.first_out_row = first;
    r.width = (uint32_t)pitch;
    for (uint32_t i = 0; i < rows; i++)
        index_row(conv, buffers->input, first * conv->op->stride[0] + i - conv->op->padding[0], sums,
                  r.index + i * pitch * quads, r.sum + i * pitch);
    /* A step of two reads one behind the last. */
    memset(r.index + rows * pitch * quads, 0, SLACK);
    return r;
}

/* ---- Products ---- */

#define INLINE static inline __attribute__((always_inline)) /* widths are constants in each place of use */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

typedef struct product {
    const uint16_t *row[MOST_ROWS];
    const __m256i *weights;
    size_t outer_step, inner_step; /* indices from segment to segment */
    uint32_t outer, inner, steps;
    uint32_t widen_after;          /* steps whose sums fit 8 bits */
    __m256i sums[MOST_ROWS][WIDEST][2]; /* 16 bits: even lanes, odd lanes */
} product;

/* Table rows of one step: one for all lanes, or one for each half. */
INLINE __m256i look_up(const uint16_t *index, int halves)
{
    const __m128i low = _mm_load_si128((const __m128i *)(const void *)(table + index[0]));
    if (!halves)
        return _mm256_broadcastsi128_si256(low);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                   _mm_load_si128((const __m128i *)(const void *)(table + index[1])), 1);
}

INLINE void widen(product *p, __m256i sum[MOST_ROWS][WIDEST], int rows, int width)
{
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < width; v++) {
            __m256i *to = p->sums[r][v];
            to[0] = _mm256_add_epi16(to[0], _mm256_and_si256(sum[r][v], _mm256_set1_epi16(0xFF)));
            to[1] = _mm256_add_epi16(to[1], _mm256_srli_epi16(sum[r][v], 8));
            sum[r][v] = _mm256_setzero_si256();
        }
}

/* Some steps of one segment. */
INLINE const __m256i *add_steps(__m256i sum[MOST_ROWS][WIDEST], const uint16_t **row, const __m256i *w, uint32_t steps,
                                int rows, int width, int halves)
{
    for (const __m256i *end = w + (size_t)steps * (uint32_t)width; w != end; w += width) {
        __m256i entry[MOST_ROWS];
        UNROLL for (int r = 0; r < rows; r++) {
            entry[r] = look_up(row[r], halves);
            row[r] += 1 + halves;
        }
        UNROLL for (int v = 0; v < width; v++) {
            __m256i pattern = _mm256_load_si256(w + v);
            __asm__("" : "+x"(pattern)); /* else it is loaded once for each row, and loads are what is scarce */
            UNROLL for (int r = 0; r < rows; r++)
                sum[r][v] = _mm256_add_epi8(sum[r][v], _mm256_shuffle_epi8(entry[r], pattern));
        }
    }
    return w;
}

INLINE void multiply(product *p, int rows, int width, int halves)
{
    __m256i sum[MOST_ROWS][WIDEST];
    const __m256i *w = p->weights;
    uint32_t left = p->widen_after;
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < width; v++)
            sum[r][v] = p->sums[r][v][0] = p->sums[r][v][1] = _mm256_setzero_si256();
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const uint16_t *row[MOST_ROWS];
            UNROLL for (int r = 0; r < rows; r++)
                row[r] = p->row[r] + outer * p->outer_step + inner * p->inner_step;
            for (uint32_t done = 0; done < p->steps;) {
                const uint32_t steps = qxr_min(left, p->steps - done);
                w = add_steps(sum, row, w, steps, rows, width, halves);
                done += steps;
                left -= steps;
                if (left)
                    continue;
                widen(p, sum, rows, width);
                left = p->widen_after;
            }
        }
    widen(p, sum, rows, width);
}

/* Functions of their own, so that the loops have the registers to themselves. */
#define PRODUCT static __attribute__((noinline)) void
PRODUCT multiply_4x1(product *p) { multiply(p, 4, 1, 0); }
PRODUCT multiply_4x1_halves(product *p) { multiply(p, 4, 1, 1); }
PRODUCT multiply_4x2(product *p) { multiply(p, 4, 2, 0); }
PRODUCT multiply_2x3(product *p) { multiply(p, 2, 3, 0); }
PRODUCT multiply_2x4(product *p) { multiply(p, 2, 4, 0); }
PRODUCT multiply_1x4(product *p) { multiply(p, 1, 4, 0); }

/* ---- Sums to results ---- */

typedef struct target {
    int32_t *y; /* of the first pixel and channel of the tile */
    uint32_t first, last, stride; /* channels of the tile; elements from pixel to pixel */
} target;

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
static void finish_group(const layout *l, const __m256i (*sums)[2], const int32_t *add, uint32_t input_sum,
                         const target *to, int32_t *y, uint32_t channel)
{
    const __m256i deltas = _mm256_set1_epi32((int32_t)((uint32_t)l->code.delta[0] & 0xFFFFu) | (int32_t)((uint32_t)l->code.delta[1] << 16));
    const __m256i rest = _mm256_set1_epi32(qxr_wrap_mul(l->code.lowest, (int32_t)input_sum)), none = _mm256_setzero_si256();
    const uint32_t low = qxr_max(to->first, channel), high = qxr_min(to->last, channel + LANES);
    const int whole = high - low == LANES, two = l->code.planes == 2u;
    int32_t copy[LANES];
    int32_t *at = whole ? y + (channel - to->first) : copy;
    combine(sums[0][0], two ? sums[1][0] : none, deltas, add + channel, rest, at);
    combine(sums[0][1], two ? sums[1][1] : none, deltas, add + channel + LANES / 2, rest, at + LANES / 2);
    if (!whole)
        memcpy(y + (low - to->first), copy + (low - channel), (high - low) * sizeof *copy);
}

/* Even and odd bytes of the lower and of the upper half, back in the order of the channels. */
static void finish_narrow(const layout *l, const __m256i (*sums)[2], const int32_t *add, uint32_t input_sum,
                          const target *to, int32_t *y)
{
    const int32_t rest = qxr_wrap_mul(l->code.lowest, (int32_t)input_sum);
    int16_t even[NARROW], odd[NARROW];
    int32_t out[NARROW];
    memcpy(even, &sums[0][0], sizeof even);
    memcpy(odd, &sums[0][1], sizeof odd);
    for (uint32_t c = 0; c < NARROW; c++) {
        const int16_t *half = c % 2u ? odd : even;
        const int32_t a = half[c / 2u], b = half[NARROW / 2 + c / 2u];
        const int32_t sum = l->code.delta[0] * a + (l->code.planes == 2u ? l->code.delta[1] : l->code.delta[0]) * b;
        out[c] = qxr_wrap_add(qxr_wrap_add(sum, rest), add[c]);
    }
    memcpy(y, out + to->first, (to->last - to->first) * sizeof *y);
}

/* Where a pixel's window begins, as a position in the rows of indices. */
static size_t window_at(const qxr_conv *conv, const index_rows *rows, uint32_t pixel)
{
    const uint32_t width = conv->out->extent[2], y = pixel / width - rows->first_out_row, x = pixel % width;
    return (size_t)y * conv->op->stride[0] * rows->width + (size_t)x * conv->op->stride[1];
}

static uint32_t window_sum(const qxr_conv *conv, const index_rows *rows, size_t at)
{
    uint32_t sum = 0;
    for (uint32_t v = 0; v < conv->op->window[0]; v++)
        for (uint32_t h = 0; h < conv->op->window[1]; h++)
            sum += rows->sum[at + (size_t)v * conv->op->dilation[0] * rows->width + (size_t)h * conv->op->dilation[1]];
    return sum;
}

/* Some pixels and all vectors of one block. */
static void multiply_block(const qxr_conv *conv, const layout *l, const index_rows *rows, const int32_t *add, product *p,
                           uint32_t vector, const qxr_tile *tile, const target *to, int32_t *y)
{
    const uint32_t width = qxr_min(WIDEST, l->vectors - vector), per_pixel = width > 2u ? 2u : 4u;
    for (uint32_t q = 0; q < tile->pixels; q += per_pixel) {
        const uint32_t count = qxr_min(per_pixel, tile->pixels - q);
        size_t at[MOST_ROWS];
        for (uint32_t r = 0; r < MOST_ROWS; r++) {
            at[r] = window_at(conv, rows, tile->pixel + q + (r < count ? r : 0u));
            p->row[r] = rows->index + at[r] * l->quads;
        }
        if (l->narrow && l->code.planes == 1u)
            multiply_4x1_halves(p);
        else if (width == 1u)
            multiply_4x1(p);
        else if (width == 2u)
            multiply_4x2(p);
        else if (width == 3u)
            multiply_2x3(p);
        else if (count == 1u)
            multiply_1x4(p);
        else
            multiply_2x4(p);
        for (uint32_t r = 0; r < count; r++, y += to->stride) {
            const __m256i (*sums)[2] = (const __m256i (*)[2])p->sums[r];
            const uint32_t input_sum = l->code.lowest ? window_sum(conv, rows, at[r]) : 0u;
            if (l->narrow) {
                finish_narrow(l, sums, add, input_sum, to, y);
                continue;
            }
            for (uint32_t v = 0; v < width; v += l->code.planes) {
                const uint32_t channel = (vector + v) / l->code.planes * LANES;
                if (channel < to->last && channel + LANES > to->first)
                    finish_group(l, sums + v, add, input_sum, to, y, channel);
            }
        }
    }
}

static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const layout l = plan(conv);
    const int32_t *add = (const int32_t *)(const void *)(buffers->packed + l.sums);
    const uint32_t width = conv->out->extent[2], rows_at_a_time = chunk_rows(conv);
    const uint32_t first = tile->channel / LANES * l.code.planes;
    const uint32_t end = l.narrow ? 1u : ((tile->channel + tile->channels - 1u) / LANES + 1u) * l.code.planes;
    product p;
    p.outer = l.outer;
    p.inner = l.inner;
    p.steps = l.steps;
    p.widen_after = 255u / (QUAD * qxr_max(conv->input_peak, 1u));
    for (uint32_t done = 0; done < tile->pixels;) {
        const target to = {y + (size_t)done * tile->channels, tile->channel, tile->channel + tile->channels,
                           tile->channels};
        qxr_tile part = *tile;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_min(tile->pixels - done, (part.pixel / width + rows_at_a_time) * width - part.pixel);
        const index_rows rows = index_inputs(conv, buffers, l.code.lowest != 0, part.pixel, part.pixels);
        p.outer_step = (size_t)conv->op->dilation[0] * rows.width * l.quads;
        p.inner_step = (size_t)conv->op->dilation[1] * l.quads;
        for (uint32_t v = l.narrow ? 0u : first / WIDEST * WIDEST; v < end; v += WIDEST) {
            p.weights = (const __m256i *)(const void *)(buffers->packed + QXR_PACK_HEAD + v * l.vector_bytes);
            multiply_block(conv, &l, &rows, add, &p, v, &part, &to, to.y);
        }
        done += part.pixels;
    }
}

const qxr_conv_kernel qxr_avx2_table = {"avx2 table", suits, packed_size, pack, scratch_size, tile_of};
