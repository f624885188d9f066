/* Convolutions of bytes with AMX tiles.
 *
 * A tile of inputs is a run of sixteen windows at equal distances, read where the input rows lie. So that runs need no
 * copies of windows they are counted in places: a row of the result has `pitch` places, of which the first `width` are
 * its pixels. Where the first window of a row lies a whole number of distances behind the last of the row before, runs
 * go on from row to row, over a few windows that are no pixels; else, or where that takes fewer runs, each row begins
 * one of its own. */
#include <string.h>

#include "x86/amx_conv.h"
#include "x86/avx2_words.h"

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
    if (!qxr_reads_arena(conv, &qxr_amx_rows) && (size_t)(count - 1u) * (size_t)g.pitch + width > aligned * count)
        g.through = 0;
    if (!g.through)
        g.pitch = (ptrdiff_t)aligned;
    g.first = tile->pixel % width;
    g.end = (ptrdiff_t)(count - 1u) * g.pitch + last % width + 1;
    g.earliest = PTRDIFF_MIN;
    g.latest = PTRDIFF_MAX;
    if (qxr_reads_arena(conv, &qxr_amx_rows)) {
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

/* The pixels among some places of a run, of which `sums` has the sums. */
static void write_places(const places *g, ptrdiff_t place, ptrdiff_t end, int32_t (*sums)[BLOCK], const target *to)
{
    ptrdiff_t count;
    for (; place < end; place += count, sums += count) {
        const ptrdiff_t column = place % g->pitch, row = place / g->pitch;
        const size_t pixel = (size_t)(row * g->width + column - g->first);
        count = (column < g->width ? g->width : g->pitch) - column;
        count = count < end - place ? count : end - place;
        if (column >= g->width)
            continue;
        if (to->epilogue)
            qxr_apply_epilogue(to->epilogue, to->pixel + pixel, sums, (size_t)count);
        else if (to->lanes == BLOCK)
            write_blocks(to, pixel, sums, (size_t)count);
        else
            write_lanes(to, pixel, sums, (size_t)count);
    }
}

/* Two runs whose sums are there, and wait to be written while the next two are multiplied: the tiles are busy for 64
 * cycles a step, and need few instructions. Everything exists twice, for those that wait and for those that are made. */
typedef struct waiting {
    const places *g;
    int32_t (*sums)[BLOCK];            /* [PAIR]; null: nothing waits */
    const target *to;
    ptrdiff_t run[2], place[2];        /* where the runs begin; their own places begin later where they overlap others */
    uint32_t runs;
} waiting;

/* Part `part` of `parts` of what waits, in whole fours of places. */
static void write_part(void *context, uint32_t part, uint32_t parts)
{
    const waiting *w = context;
    const uint32_t fours = PAIR / 4u;
    const ptrdiff_t from = (ptrdiff_t)(fours * part / parts * 4u), to = (ptrdiff_t)(fours * (part + 1u) / parts * 4u);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)w->runs; i++) {
        const ptrdiff_t run = w->run[i], first = from - i * RUN, last = to - i * RUN;
        ptrdiff_t place = run + (first > 0 ? first : 0), end = run + (last < RUN ? last : RUN);
        place = place < w->place[i] ? w->place[i] : place;
        end = end < w->g->end ? end : w->g->end;
        if (place < end)
            write_places(w->g, place, end, w->sums + i * RUN + (place - run), w->to);
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
    for (uint32_t plane = b->planes; plane-- > 0u; p->beside = NULL) {
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

/* Memory for two pairs of runs and two blocks. */
typedef struct workspace {
    _Alignas(64) int32_t sums[2][PAIR][BLOCK];
    qxr_epilogue_block epilogue[2];
    target to[2];
    waiting waiting;
    uint32_t pair;                     /* that is made */
} workspace;

/* All pixels with one block, two runs at a time. Weights that come as codes are unpacked beside the first two. */
static void multiply_block(const places *g, qxr_amx_product *p, const block *b, const target *to, workspace *w)
{
    const ptrdiff_t start = g->through ? g->first : g->first - g->first % RUN;
    p->right = to->lane + to->lanes > HALF;
    for (ptrdiff_t place = start; place < g->end; place += PAIR, p->codes = NULL) {
        const uint32_t runs = place + RUN < g->end ? 2u : 1u;
        const waiting next = {g, w->sums[w->pair], to, {run_at(g, place), run_at(g, place + RUN)},
                              {place < g->first ? g->first : place, place + RUN}, runs};
        p->x[0] = window_at(g, next.run[0]);
        p->x[1] = runs > 1u ? window_at(g, next.run[1]) : NULL;
        p->beside = w->waiting.sums ? write_part : NULL;
        p->context = &w->waiting;
        multiply_planes(p, b, w->sums[w->pair]);
        w->waiting = next;
        w->pair ^= 1u;
    }
}

/* Channels `first` to `last` of the block that begins at `channel`; `pixel`: of the tile. */
static target target_of(const qxr_amx_result *y, const qxr_tile *tile, uint32_t channel, uint32_t first, uint32_t last,
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

/* The channels of one group that the tile holds; `done` of the tile's pixels were made before. */
static void multiply_group(const qxr_conv *conv, const qxr_amx_packing *k, const qxr_conv_buffers *buffers,
                           const qxr_window_rows *from, const qxr_tile *part, uint32_t group, const qxr_amx_result *y,
                           size_t done, workspace *w)
{
    const qxr_rows_layout *l = &k->layout;
    const uint32_t start = group * conv->group_out, end = start + conv->group_out;
    const uint32_t first = qxr_max(part->channel, start), last = qxr_min(part->channel + part->channels, end);
    const places g = find_places(conv, from, (size_t)group * conv->group_in, part);
    const uint8_t *packed = buffers->packed + QXR_PACK_HEAD;
    qxr_amx_product p = {{NULL, NULL}, g.step, from->pitch * conv->op->dilation[0], from->pixel * conv->op->dilation[1],
                         l->outer, l->inner, l->steps / TILE_STEPS, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL};
    w->waiting.sums = NULL;
    for (uint32_t b = (first - start) / BLOCK; start + b * BLOCK < last; b++) {
        const size_t index = (size_t)group * l->blocks + b;
        const uint32_t channel = start + b * BLOCK;
        target *to = &w->to[b % 2u];
        block weights = {packed + index * l->planes * l->plane_bytes, l->plane_bytes, l->planes,
                         (const int32_t *)(const void *)(buffers->packed + k->sums) + index * BLOCK};
        if (k->codes_bytes) {
            p.codes = packed + index * k->codes_bytes;
            p.levels = (const qxr_amx_levels *)(const void *)buffers->packed;
            p.unpacked = buffers->scratch + qxr_round_up(qxr_rows_scratch(conv, &qxr_amx_rows), 64u);
            weights.weights = p.unpacked;
        }
        *to = target_of(y, part, channel, qxr_max(first, channel), qxr_min(last, channel + BLOCK), done);
        if (y->epilogue) {
            qxr_read_epilogue(y->epilogue, channel, &w->epilogue[b % 2u]);
            to->epilogue = &w->epilogue[b % 2u];
        }
        multiply_block(&g, &p, &weights, to, w);
    }
    write_part(&w->waiting, 0, 1);
}

void qxr_amx_tile(const qxr_conv *conv, const qxr_amx_packing *k, const qxr_conv_buffers *buffers, const qxr_tile *tile,
                  const qxr_amx_result *y)
{
    const uint32_t first_group = tile->channel / conv->group_out;
    const uint32_t last_group = (tile->channel + tile->channels - 1u) / conv->group_out;
    workspace w;
    w.pair = 0;
    qxr_amx_begin();
    for (uint32_t done = 0; done < tile->pixels;) {
        qxr_tile part = *tile;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_chunk_pixels(conv, &qxr_amx_rows, part.pixel, tile->pixels - done);
        const qxr_window_rows from = qxr_gather_rows(conv, &qxr_amx_rows, buffers, part.pixel, part.pixels);
        for (uint32_t g = first_group; g <= last_group; g++)
            multiply_group(conv, k, buffers, &from, &part, g, y, done, &w);
        done += part.pixels;
    }
    qxr_amx_end();
}

