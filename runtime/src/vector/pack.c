/* Weights in the order of the convolutions of vector instruction sets, and the tiles made of their products. */
#include "vector/rows.h"

#include <string.h>

enum { RUN = 320 }; /* weights at a time: whole bytes of every coding */

uint32_t qxr_weight_planes(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    const uint32_t bits = 8u * kernel->bytes;
    uint32_t planes = 1;
    /* p signed planes reach 2^(bits - 1) - 1 of each, joined: at least 2^(p bits - 2). The most negative number of one
     * plane is one that two's complement codes of exactly that width have. */
    if (conv->weight_peak <= (1u << (bits - 1u)) - (conv->op->count ? 1u : 0u))
        return 1;
    while (planes * bits - 2u < 31u && conv->weight_peak > 1u << (planes * bits - 2u))
        planes++;
    return planes;
}

qxr_rows_layout qxr_rows_plan(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    const qxr_op *op = conv->op;
    const int joined = op->groups == 1u && op->dilation[1] == 1u;
    qxr_rows_layout l;
    l.outer = op->window[0];
    l.inner = joined ? 1u : op->window[1];
    l.length = joined ? conv->group_in * op->window[1] : conv->group_in;
    l.steps = (l.length - 1u) / kernel->unit + 1u;
    if (kernel->multiple)
        l.steps = (uint32_t)qxr_round_up(l.steps, kernel->multiple);
    l.blocks = (conv->group_out - 1u) / kernel->block + 1u;
    l.planes = qxr_weight_planes(conv, kernel);
    l.plane_bytes = (size_t)l.outer * l.inner * l.steps * kernel->unit * kernel->block * kernel->bytes;
    l.sums = QXR_PACK_HEAD + l.plane_bytes * l.planes * l.blocks * op->groups;
    l.bytes = l.sums + (size_t)l.blocks * op->groups * kernel->block * sizeof(int32_t);
    return l;
}

size_t qxr_rows_packed_size(const qxr_conv *conv, const qxr_row_kernel *kernel) { return qxr_rows_plan(conv, kernel).bytes; }

int qxr_rows_suit(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    return qxr_rows_scratch(conv, kernel) <= QXR_ROWS_LIMIT && qxr_rows_plan(conv, kernel).bytes < QXR_NONE32;
}

/* One weight into all planes of its place. */
static void put_planes(const qxr_row_kernel *kernel, const qxr_rows_layout *l, uint8_t *at, int32_t weight)
{
    for (uint32_t p = 0; p < l->planes; p++, at += l->plane_bytes) {
        const int32_t low = kernel->bytes == 1u ? (int8_t)weight : (int16_t)weight;
        const int16_t wide = (int16_t)low;
        if (kernel->bytes == 1u)
            *at = (uint8_t)low;
        else
            memcpy(at, &wide, sizeof wide);
        weight = (int32_t)(((int64_t)weight - low) >> (8u * kernel->bytes));
    }
}

/* Whole steps of four bytes; returns how many weights they took. */
static uint32_t put_fours(const int32_t *values, uint32_t count, size_t step, uint8_t *at)
{
    uint32_t i = 0;
    for (; i + 4u <= count; i += 4u, at += step) {
        const uint8_t four[4] = {(uint8_t)values[i], (uint8_t)values[i + 1u], (uint8_t)values[i + 2u],
                                 (uint8_t)values[i + 3u]};
        memcpy(at, four, sizeof four);
    }
    return i;
}

/* Some weights of one segment, from element j of it on; `at` is where the segment begins in this lane. */
static void put_run(const qxr_row_kernel *kernel, const qxr_rows_layout *l, const int32_t *values, uint32_t count, uint32_t j,
                    uint8_t *at)
{
    const size_t step = (size_t)kernel->unit * kernel->block * kernel->bytes, last = (kernel->unit - 1u) * kernel->bytes;
    uint32_t in_step = j % kernel->unit, i = 0;
    at += j / kernel->unit * step + (size_t)in_step * kernel->bytes;
    if (kernel->bytes == 1u && kernel->unit == 4u && l->planes == 1u && in_step == 0u) {
        i = put_fours(values, count, step, at);
        at += i / 4u * step;
    }
    for (; i < count; i++) {
        if (l->planes > 1u) {
            put_planes(kernel, l, at, values[i]);
        } else if (kernel->bytes == 1u) {
            *at = (uint8_t)values[i];
        } else {
            const int16_t wide = (int16_t)values[i];
            memcpy(at, &wide, sizeof wide);
        }
        at += kernel->bytes;
        if (++in_step == kernel->unit) {
            in_step = 0;
            at += step - last - kernel->bytes;
        }
    }
}

/* All weights of channel `o` into lane `lane` of a block; returns their sum, and raises the peak. */
static int32_t pack_channel(const qxr_conv *conv, const qxr_row_kernel *kernel, const qxr_rows_layout *l, uint32_t o,
                            uint32_t lane, uint8_t *block, uint32_t *peak)
{
    const size_t segment_bytes = (size_t)l->steps * kernel->unit * kernel->block * kernel->bytes;
    uint8_t *at = block + (size_t)lane * kernel->unit * kernel->bytes;
    uint32_t sum = 0, most = *peak;
    for (uint32_t k = 0; k < conv->row; k += l->length, at += segment_bytes)
        for (uint32_t j = 0; j < l->length; j += RUN) {
            const uint32_t count = qxr_min(RUN, l->length - j);
            int32_t values[RUN];
            qxr_weight_values(&conv->weights, o, k + j, count, values);
            for (uint32_t i = 0; i < count; i++) {
                const uint32_t size = values[i] < 0 ? 0u - (uint32_t)values[i] : (uint32_t)values[i];
                sum += (uint32_t)values[i];
                most = most > size ? most : size;
            }
            put_run(kernel, l, values, count, j, at);
        }
    *peak = most;
    return (int32_t)sum;
}

void qxr_rows_pack(const qxr_conv *conv, const qxr_row_kernel *kernel, uint8_t *packed)
{
    const qxr_rows_layout l = qxr_rows_plan(conv, kernel);
    qxr_pack_head *head = (qxr_pack_head *)(void *)packed;
    int32_t *sums = (int32_t *)(void *)(packed + l.sums);
    uint32_t peak = 1;
    memset(packed, 0, l.bytes);
    for (uint32_t o = 0; o < conv->out->extent[0]; o++) {
        const uint32_t group = o / conv->group_out, lane = o % conv->group_out;
        const size_t block = (size_t)group * l.blocks + lane / kernel->block;
        uint8_t *to = packed + QXR_PACK_HEAD + block * l.planes * l.plane_bytes;
        const int32_t sum = pack_channel(conv, kernel, &l, o, lane % kernel->block, to, &peak);
        /* Bytes are value - base; 16-bit inputs are values. */
        if (kernel->bytes == 1u)
            sums[block * kernel->block + lane % kernel->block] = qxr_wrap_mul(sum, conv->base);
    }
    head->planes = l.planes;
    head->widen_after = 32767u / (2u * qxr_max(conv->input_peak, 1u) * qxr_min(peak, 128u));
}

/* Where the products of one block go, and what they begin with. */
typedef struct target {
    uint32_t lane, lanes; /* of the block that the tile holds */
    int32_t *y;           /* of the first pixel, first of these lanes */
    size_t stride;
} target;

/* One product of up to kernel->rows pixels, p->count of them. A tile that ends within them or the block goes through a
 * copy. `accumulates`: the product adds to what the tile holds. */
static void multiply(const qxr_row_kernel *kernel, qxr_product *p, const target *to, uint32_t first, int accumulates,
                     const int32_t *init)
{
    int32_t copy[QXR_MOST_ROWS * QXR_WIDEST_BLOCK];
    int32_t *y = to->y + first * to->stride;
    const int whole = p->count == kernel->rows && to->lanes == kernel->block;
    p->out = whole ? y : copy;
    p->out_stride = whole ? to->stride : kernel->block;
    p->lanes = to->lane + to->lanes;
    p->init = accumulates ? p->out : init;
    p->init_stride = accumulates ? p->out_stride : 0u;
    if (accumulates && !whole) {
        memset(copy, 0, sizeof copy);
        for (uint32_t r = 0; r < p->count; r++)
            memcpy(copy + r * kernel->block + to->lane, y + r * to->stride, to->lanes * sizeof *y);
    }
    kernel->product(p);
    for (uint32_t r = 0; r < p->count && !whole; r++)
        memcpy(y + r * to->stride, copy + r * kernel->block + to->lane, to->lanes * sizeof *y);
}

/* Some pixels whose input rows are at hand. */
typedef struct source {
    const qxr_window_rows *rows;
    size_t offset; /* bytes to the group's first channel */
    uint32_t pixel, pixels;
} source;

/* The products of one block and one pair of planes with these pixels. */
static void multiply_pixels(const qxr_conv *conv, const qxr_row_kernel *kernel, const source *from, size_t plane,
                            qxr_product *p, const target *to, int accumulates, const int32_t *init)
{
    qxr_window_walk w = qxr_walk_windows(conv, from->rows, from->pixel);
    w.at += from->offset + plane;
    for (uint32_t q = 0; q < from->pixels; q += kernel->rows) {
        p->count = qxr_min(kernel->rows, from->pixels - q);
        for (uint32_t r = 0; r < p->count; r++)
            p->row[r] = qxr_next_window(&w);
        for (uint32_t r = p->count; r < kernel->rows; r++)
            p->row[r] = p->row[0];
        multiply(kernel, p, to, q, accumulates, init);
    }
}

/* y = (y << bits) + sums: the step from one plane to the next lower one. */
static void shift_up(const target *to, uint32_t pixels, uint32_t bits, const int32_t *sums)
{
    for (uint32_t p = 0; p < pixels; p++)
        for (uint32_t c = 0; c < to->lanes; c++) {
            int32_t *y = to->y + p * to->stride + c;
            *y = (int32_t)(((uint32_t)*y << bits) + (uint32_t)sums[c]);
        }
}

/* One block of channels: planes from the highest down. With two planes of inputs (a = low + 2^16 high) the pairs (low,
 * high weight) and (high, low weight) come first; (high, high) would lie above 32 bits. */
static void multiply_planes(const qxr_conv *conv, const qxr_row_kernel *kernel, const source *from, const qxr_rows_layout *l,
                            const uint8_t *weights, const int32_t *sums, qxr_product *p, const target *to)
{
    static const int32_t zeros[QXR_WIDEST_BLOCK] = {0};
    const uint32_t bits = 8u * kernel->bytes, input_planes = qxr_input_planes(conv, kernel);
    const int32_t *init = l->planes == 1u && input_planes == 1u ? sums : zeros;
    int accumulates = 0;
    for (uint32_t plane = l->planes; plane-- > 0u;) {
        if (plane == 0u && input_planes == 2u) {
            p->weights = weights;
            multiply_pixels(conv, kernel, from, from->rows->plane, p, to, accumulates, init);
            accumulates = 1;
        }
        if (accumulates)
            shift_up(to, from->pixels, bits, plane == 0u ? sums + to->lane : zeros);
        p->weights = weights + plane * l->plane_bytes;
        multiply_pixels(conv, kernel, from, 0, p, to, accumulates, init);
        accumulates = 1;
    }
}

/* The part of one group's channels that the tile holds, block by block. */
static void multiply_group(const qxr_conv *conv, const qxr_row_kernel *kernel, const qxr_conv_buffers *buffers,
                           const qxr_window_rows *rows, const qxr_tile *tile, uint32_t group, int32_t *y)
{
    const qxr_rows_layout l = qxr_rows_plan(conv, kernel);
    const qxr_pack_head *head = (const qxr_pack_head *)(const void *)buffers->packed;
    const int32_t *sums = (const int32_t *)(const void *)(buffers->packed + l.sums);
    const uint32_t start = group * conv->group_out, end = start + conv->group_out;
    const uint32_t first = qxr_max(tile->channel, start) - start;
    const uint32_t last = qxr_min(tile->channel + tile->channels, end) - start; /* behind the last */
    const source from = {rows, (size_t)group * conv->group_in * kernel->bytes, tile->pixel, tile->pixels};
    qxr_product p;
    p.outer_step = rows->pitch * conv->op->dilation[0];
    p.inner_step = rows->pixel * conv->op->dilation[1];
    p.outer = l.outer;
    p.inner = l.inner;
    p.steps = l.steps;
    p.widen_after = head->widen_after;
    for (uint32_t b = first / kernel->block; b * kernel->block < last; b++) {
        const size_t block = (size_t)group * l.blocks + b;
        const uint32_t low = qxr_max(first, b * kernel->block), high = qxr_min(last, (b + 1u) * kernel->block);
        const target to = {low % kernel->block, high - low, y + (start + low - tile->channel), tile->channels};
        multiply_planes(conv, kernel, &from, &l, buffers->packed + QXR_PACK_HEAD + block * l.planes * l.plane_bytes,
                        sums + block * kernel->block, &p, &to);
    }
}

void qxr_rows_tile(const qxr_conv *conv, const qxr_row_kernel *kernel, const qxr_conv_buffers *buffers,
                   const qxr_tile *tile, int32_t *y)
{
    const uint32_t first_group = tile->channel / conv->group_out;
    const uint32_t last_group = (tile->channel + tile->channels - 1u) / conv->group_out;
    for (uint32_t done = 0; done < tile->pixels;) {
        qxr_tile part = *tile;
        part.pixel = tile->pixel + done;
        part.pixels = qxr_chunk_pixels(conv, kernel, part.pixel, tile->pixels - done);
        const qxr_window_rows rows = qxr_gather_rows(conv, kernel, buffers, part.pixel, part.pixels);
        for (uint32_t g = first_group; g <= last_group; g++)
            multiply_group(conv, kernel, buffers, &rows, &part, g, y + (size_t)done * tile->channels);
        done += part.pixels;
    }
}
