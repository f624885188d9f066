/* Convolutions of bytes with AMX tiles.
 *
 * A tile of inputs is a run of sixteen windows at equal distances, read where the input rows lie. So that runs need no
 * copies of windows they are counted in places: a row of the result has `pitch` places, of which the first `width` are
 * its pixels. Where the first window of a row lies a whole number of distances behind the last of the row before, runs
 * go on from row to row, over a few windows that are no pixels; else, or where that takes fewer runs, each row begins
 * one of its own. */
#include <string.h>

#include "x86/amx_epilogue.h"
#include "x86/avx2_words.h"

static const qxr_row_kernel rows = {4, 1, PAIR, BLOCK, NULL, TILE_STEPS, RUN};

/* The places of some pixels; place 0 is the first one of the row of the first of them. */
typedef struct places {
    const uint8_t *x;                 /* under the window of place 0 */
    size_t step, row_step;            /* bytes from place to place, from row to row */
    int through;                      /* whether runs go on from row to row */
    ptrdiff_t width, pitch;
    ptrdiff_t first, end;             /* of the first pixel, behind the last */
    ptrdiff_t earliest, latest;       /* where runs may begin, so that they read nothing beyond the tensor */
} places;

static places find_places(const qxr_conv *conv, const qxr_window_rows *from, size_t offset, const qxr_tile *tile)
{
    const uint32_t width = conv->out->extent[2], last = tile->pixel + tile->pixels - 1u;
    const uint32_t count = last / width - from->first_out_row + 1u;
    const size_t aligned = qxr_round_up(width, RUN);
    places g = {0};
    g.x = from->data + offset;
    g.step = conv->op->stride[1] * from->pixel;
    g.row_step = conv->op->stride[0] * from->pitch;
    g.width = width;
    g.pitch = (ptrdiff_t)(g.row_step / g.step);
    g.through = g.row_step % g.step == 0u;
    if (!qxr_reads_arena(conv, &rows) && (size_t)(count - 1u) * (size_t)g.pitch + width > aligned * count)
        g.through = 0;
    if (!g.through)
        g.pitch = (ptrdiff_t)aligned;
    g.first = tile->pixel % width;
    g.end = (ptrdiff_t)(count - 1u) * g.pitch + last % width + 1;
    g.earliest = PTRDIFF_MIN;
    g.latest = PTRDIFF_MAX;
    if (qxr_reads_arena(conv, &rows)) {
        g.earliest = -(ptrdiff_t)from->first_out_row * g.pitch;
        g.latest = g.end - RUN;
    }
    return g;
}

/* Where the run begins that has the places from `place` on. */
static ptrdiff_t run_at(const places *g, ptrdiff_t place)
{
    if (place > g->latest)
        place = g->latest;
    return place < g->earliest ? g->earliest : place;
}

static const uint8_t *window_at(const places *g, ptrdiff_t place)
{
    if (g->through)
        return g->x + place * (ptrdiff_t)g->step;
    return g->x + (size_t)(place / g->pitch) * g->row_step + (size_t)(place % g->pitch) * g->step;
}

/* Where results go: one of three. */
typedef struct target {
    int32_t *y;           /* of the first pixel, first of these lanes */
    int16_t *words;
    const qxr_epilogue_block *epilogue;
    size_t pixel, stride; /* pixel of the tensor that is the first */
    uint32_t lane, lanes; /* of the block */
} target;

/* Sixteen values that fit 16 bits. */
static inline void store_words(const int32_t *from, int16_t *to)
{
    const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)from);
    const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(from + WORDS / 2));
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
    _mm256_storeu_si256((__m256i *)(void *)to, both);
}

/* Pixels of all channels of a block. */
static void write_blocks(const target *to, size_t pixel, int32_t (*sums)[BLOCK], size_t count)
{
    const size_t stride = to->stride, at = pixel * stride;
    if (to->words)
        for (int16_t *y = to->words + at; count; count--, sums++, y += stride) {
            store_words(sums[0], y);
            store_words(sums[0] + WORDS, y + WORDS);
        }
    else
        for (int32_t *y = to->y + at; count; count--, sums++, y += stride)
            memcpy(y, sums[0], sizeof sums[0]);
}

static void write_lanes(const target *to, size_t pixel, int32_t (*sums)[BLOCK], size_t count)
{
    for (; count; count--, pixel++, sums++)
        for (uint32_t c = 0; c < to->lanes; c++)
            if (to->words)
                to->words[pixel * to->stride + c] = (int16_t)sums[0][to->lane + c];
            else
                to->y[pixel * to->stride + c] = sums[0][to->lane + c];
}

/* The pixels among the places of a run from `place` on. */
static void write_run(const places *g, ptrdiff_t run, ptrdiff_t place, int32_t (*sums)[BLOCK], const target *to)
{
    const ptrdiff_t end = run + RUN < g->end ? run + RUN : g->end;
    ptrdiff_t count;
    for (place = place < g->first ? g->first : place; place < end; place += count) {
        const ptrdiff_t column = place % g->pitch, row = place / g->pitch;
        count = (column < g->width ? g->width : g->pitch) - column;
        count = count < end - place ? count : end - place;
        const size_t pixel = (size_t)(row * g->width + column - g->first);
        if (column >= g->width)
            continue;
        if (to->epilogue)
            qxr_apply_epilogue(to->epilogue, to->pixel + pixel, sums + (place - run), (size_t)count);
        else if (to->lanes == BLOCK)
            write_blocks(to, pixel, sums + (place - run), (size_t)count);
        else
            write_lanes(to, pixel, sums + (place - run), (size_t)count);
    }
}

/* Packed weights of a block. */
typedef struct block {
    const uint8_t *weights;        /* [plane] of plane_bytes */
    size_t plane_bytes;
    uint32_t planes;
    const int32_t *sums;           /* what the results begin with */
} block;

/* Planes from the highest down: each step joins 8 bits. */
static void multiply_planes(qxr_amx_product *p, const block *b, int32_t (*sums)[BLOCK])
{
    static const int32_t zeros[BLOCK] = {0};
    for (uint32_t plane = b->planes; plane-- > 0u;) {
        _Alignas(64) int32_t lower[PAIR][BLOCK];
        const int is_highest = plane + 1u == b->planes;
        p->weights = b->weights + plane * b->plane_bytes;
        p->init = plane ? zeros : b->sums;
        qxr_amx_multiply(p, is_highest ? sums : lower);
        for (uint32_t i = 0; i < PAIR && !is_highest; i++)
            for (uint32_t c = 0; c < BLOCK; c++)
                sums[i][c] = (int32_t)(((uint32_t)sums[i][c] << 8) + (uint32_t)lower[i][c]);
    }
}

/* All pixels with one block, two runs at a time. Weights that come as codes are unpacked beside the first two. */
static void multiply_block(const places *g, qxr_amx_product *p, const block *b, const target *to)
{
    const ptrdiff_t start = g->through ? g->first : g->first - g->first % RUN;
    p->right = to->lane + to->lanes > HALF;
    for (ptrdiff_t place = start; place < g->end; place += PAIR, p->codes = NULL) {
        _Alignas(64) int32_t sums[PAIR][BLOCK];
        const int lower = place + RUN < g->end;
        const ptrdiff_t upper_run = run_at(g, place), lower_run = run_at(g, place + RUN);
        p->x[0] = window_at(g, upper_run);
        p->x[1] = lower ? window_at(g, lower_run) : NULL;
        multiply_planes(p, b, sums);
        write_run(g, upper_run, place, sums, to);
        if (lower)
            write_run(g, lower_run, place + RUN, sums + RUN, to);
    }
}

/* Where a tile goes: one of three. */
typedef struct result {
    int32_t *y;
    int16_t *words;
    const qxr_epilogue *epilogue;
    size_t stride;
} result;

/* Channels `first` to `last` of the block that begins at `channel`; `pixel`: of the tile. */
static target target_of(const result *y, const qxr_tile *tile, uint32_t channel, uint32_t first, uint32_t last,
                        size_t pixel)
{
    target to = {NULL, NULL, NULL, tile->pixel, y->stride, first - channel, last - first};
    const size_t at = pixel * y->stride + (first - tile->channel);
    if (y->words)
        to.words = y->words + at;
    else if (y->y)
        to.y = y->y + at;
    return to;
}

/* The packed weights of the two kernels. */
typedef struct packing {
    qxr_rows_layout layout;
    size_t codes_bytes;            /* of one block as codes, or 0 */
    size_t sums;
} packing;

/* The channels of one group that the tile holds; `done` of the tile's pixels were made before. */
static void multiply_group(const qxr_conv *conv, const packing *k, const qxr_conv_buffers *buffers,
                           const qxr_window_rows *from, const qxr_tile *part, uint32_t group, const result *y,
                           size_t done)
{
    const qxr_rows_layout *l = &k->layout;
    const uint32_t start = group * conv->group_out, end = start + conv->group_out;
    const uint32_t first = qxr_max(part->channel, start), last = qxr_min(part->channel + part->channels, end);
    const places g = find_places(conv, from, (size_t)group * conv->group_in, part);
    const uint8_t *packed = buffers->packed + QXR_PACK_HEAD;
    qxr_amx_product p = {{NULL, NULL}, g.step, from->pitch * conv->op->dilation[0], from->pixel * conv->op->dilation[1],
                         l->outer, l->inner, l->steps / TILE_STEPS, NULL, NULL, NULL, NULL, NULL, 0};
    for (uint32_t b = (first - start) / BLOCK; start + b * BLOCK < last; b++) {
        const size_t index = (size_t)group * l->blocks + b;
        const uint32_t channel = start + b * BLOCK;
        target to = target_of(y, part, channel, qxr_max(first, channel), qxr_min(last, channel + BLOCK), done);
        qxr_epilogue_block epilogue;
        block weights = {packed + index * l->planes * l->plane_bytes, l->plane_bytes, l->planes,
                         (const int32_t *)(const void *)(buffers->packed + k->sums) + index * BLOCK};
        if (k->codes_bytes) {
            p.codes = packed + index * k->codes_bytes;
            p.levels = (const qxr_amx_levels *)(const void *)buffers->packed;
            p.unpacked = buffers->scratch + qxr_round_up(qxr_rows_scratch(conv, &rows), 64u);
            weights.weights = p.unpacked;
        }
        if (y->epilogue) {
            qxr_read_epilogue(y->epilogue, channel, &epilogue);
            to.epilogue = &epilogue;
        }
        multiply_block(&g, &p, &weights, &to);
    }
}

static void make_tile(const qxr_conv *conv, const packing *k, const qxr_conv_buffers *buffers, const qxr_tile *tile,
                      const result *y)
{
    const uint32_t first_group = tile->channel / conv->group_out;
    const uint32_t last_group = (tile->channel + tile->channels - 1u) / conv->group_out;
    qxr_amx_begin();
    for (uint32_t done = 0; done < tile->pixels;) {
        qxr_tile part = *tile;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_chunk_pixels(conv, &rows, part.pixel, tile->pixels - done);
        const qxr_window_rows from = qxr_gather_rows(conv, &rows, buffers, part.pixel, part.pixels);
        for (uint32_t g = first_group; g <= last_group; g++)
            multiply_group(conv, k, buffers, &from, &part, g, y, done);
        done += part.pixels;
    }
    qxr_amx_end();
}

/* ---- Weights as bytes ---- */

/* A half of a tile, at least, has to be of use. */
enum { FEWEST_CHANNELS = 8 };

static int bytes_suit(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= 255u && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, &rows);
}

static size_t bytes_packed(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &rows); }
static void pack_bytes(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &rows, packed); }
static size_t bytes_scratch(const qxr_conv *conv) { return qxr_rows_scratch(conv, &rows); }

static packing bytes_packing(const qxr_conv *conv)
{
    packing k = {qxr_rows_plan(conv, &rows), 0, 0};
    k.sums = k.layout.sums;
    return k;
}

static void bytes_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const packing k = bytes_packing(conv);
    const result to = {y, NULL, NULL, tile->channels};
    make_tile(conv, &k, buffers, tile, &to);
}

static void bytes_words(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y)
{
    const packing k = bytes_packing(conv);
    const result to = {NULL, y.at, NULL, y.pitch};
    make_tile(conv, &k, buffers, tile, &to);
}

const qxr_conv_kernel qxr_amx_u8 = {"amx u8", bytes_suit, bytes_packed, pack_bytes, bytes_scratch, bytes_tile,
                                    bytes_words, 0};

/* ---- Weights as codes of two bits, for layers whose bytes would come from far at every run ---- */

enum {
    LEAST_BYTES = 1 << 20, /* below, bytes stay near from one run to the next */
    RUN_OF_CODES = 320     /* weights at a time: whole bytes of every coding */
};

static packing codes_packing(const qxr_conv *conv)
{
    packing k = {qxr_rows_plan(conv, &rows), 0, 0};
    k.codes_bytes = k.layout.plane_bytes / 4u;
    k.sums = QXR_PACK_HEAD + k.layout.blocks * k.codes_bytes;
    return k;
}

static size_t codes_packed(const qxr_conv *conv)
{
    const packing k = codes_packing(conv);
    return k.sums + (size_t)k.layout.blocks * BLOCK * sizeof(int32_t);
}

/* Whole tiles: bytes behind a segment would be multiplied by a level, which need not be zero. */
static int codes_suit(const qxr_conv *conv)
{
    const uint32_t entries = conv->op->count ? conv->op->count : 1u << qxr_min(conv->op->parameter, 31u);
    if (!bytes_suit(conv) || entries > 4u || conv->op->groups != 1u || qxr_weight_planes(conv, &rows) != 1u)
        return 0;
    const packing k = codes_packing(conv);
    return k.layout.length % TILE_BYTES == 0u && k.layout.bytes > LEAST_BYTES &&
           (uint64_t)qxr_pixels(conv->out) * BLOCK <= qxr_isa_amx.tile_elements;
}

static size_t codes_scratch(const qxr_conv *conv)
{
    const packing k = codes_packing(conv);
    return qxr_round_up(qxr_rows_scratch(conv, &rows), 64u) + k.layout.plane_bytes;
}

/* What a code of two bits stands for. Without a codebook it is the weight itself, of one or two bits. */
static int32_t level_of(const qxr_conv *conv, uint32_t code)
{
    const uint32_t sign = 1u << (conv->op->parameter - 1u);
    if (conv->op->count)
        return code < conv->op->count ? conv->weights.codebook[code] : 0;
    return (int32_t)((code & (2u * sign - 1u)) ^ sign) - (int32_t)sign;
}

/* Some codes of one channel from code `first` on, eight at a time: whole tiles leave no gaps between segments. */
static void put_codes(const int32_t *codes, uint32_t count, uint32_t first, uint32_t lane, uint8_t *to)
{
    to += first / 8u * 64u + lane % HALF * 4u;
    for (uint32_t i = 0; i < count; i += 8u, to += 64u) {
        uint32_t all = 0, others;
        for (uint32_t j = 0; j < 4u; j++)
            all |= (((uint32_t)codes[i + j] & 3u) | ((uint32_t)codes[i + 4u + j] & 3u) << 4) << 8u * j;
        memcpy(&others, to, sizeof others);
        others |= all << lane / HALF * 2u;
        memcpy(to, &others, sizeof others);
    }
}

static void pack_codes(const qxr_conv *conv, uint8_t *packed)
{
    const packing k = codes_packing(conv);
    qxr_amx_levels *levels = (qxr_amx_levels *)(void *)packed;
    int32_t *sums = (int32_t *)(void *)(packed + k.sums);
    memset(packed, 0, codes_packed(conv));
    for (uint32_t i = 0; i < LEVEL_BYTES; i++) {
        levels->first[i] = (int8_t)level_of(conv, i % 4u);
        levels->second[i] = (int8_t)level_of(conv, i / 4u);
    }
    for (uint32_t o = 0; o < conv->out->extent[0]; o++) {
        uint8_t *to = packed + QXR_PACK_HEAD + o / BLOCK * k.codes_bytes;
        int32_t sum = 0;
        for (uint32_t j = 0; j < conv->row; j += RUN_OF_CODES) {
            const uint32_t count = qxr_min(RUN_OF_CODES, conv->row - j);
            int32_t codes[RUN_OF_CODES];
            qxr_weight_codes(&conv->weights, o, j, count, codes);
            put_codes(codes, count, j, o % BLOCK, to);
            for (uint32_t i = 0; i < count && conv->base; i++)
                sum += levels->first[(uint32_t)codes[i] & 3u];
        }
        sums[o] = qxr_wrap_mul(sum, conv->base);
    }
}

static void codes_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const packing k = codes_packing(conv);
    const result to = {y, NULL, NULL, tile->channels};
    make_tile(conv, &k, buffers, tile, &to);
}

static void codes_words(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y)
{
    const packing k = codes_packing(conv);
    const result to = {NULL, y.at, NULL, y.pitch};
    make_tile(conv, &k, buffers, tile, &to);
}

const qxr_conv_kernel qxr_amx_codes = {"amx codes", codes_suit, codes_packed, pack_codes, codes_scratch, codes_tile,
                                       codes_words, 4};

/* ---- With what follows in the group ---- */

int qxr_amx_whole_chain(const qxr_conv_kernel *kernel, const qxr_conv *conv, const qxr_conv_buffers *buffers,
                        const qxr_chain *chain, const qxr_tile *tile)
{
    const int is_bytes = kernel == &qxr_amx_u8;
    qxr_epilogue e;
    if (!conv || (!is_bytes && kernel != &qxr_amx_codes) || !qxr_plan_epilogue(chain, conv, tile, &e))
        return qxr_avx2_whole_chain(kernel, conv, buffers, chain, tile);
    const packing k = is_bytes ? bytes_packing(conv) : codes_packing(conv);
    const result to = {NULL, NULL, &e, 0};
    make_tile(conv, &k, buffers, tile, &to);
    return 1;
}
