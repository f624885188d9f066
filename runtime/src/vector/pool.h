/* Windows of maximum and sum pools; what every vector instruction set shares. */
#ifndef QXR_POOL_H
#define QXR_POOL_H

#include "kernels.h"

/* The taps of one window that lie inside the image. Every window of a maximum has one. */
typedef struct qxr_pool_window {
    const uint8_t *first; /* element 0 of the pixel under the first of them */
    size_t row, column;   /* bytes from tap to tap */
    uint32_t rows, columns;
} qxr_pool_window;

/* Not marked inline: the compiler's own choice of what to inline gives smaller and faster loops around these two. */

/* First tap inside the image, and how many, along one axis. */
static uint32_t qxr_taps_inside(const qxr_op *op, uint32_t axis, uint32_t at, uint32_t extent, uint32_t *first)
{
    uint32_t begin = 0, end = op->window[axis];
    while (begin < end && qxr_input_at(op, axis, at, begin) >= extent)
        begin++;
    while (end > begin && qxr_input_at(op, axis, at, end - 1u) >= extent)
        end--;
    *first = qxr_input_at(op, axis, at, begin);
    return end - begin;
}

static qxr_pool_window qxr_pool_window_at(const qxr_work *work, uint32_t pixel)
{
    const qxr_tensor *in = work->in[0];
    const size_t bytes = (size_t)in->extent[0] * qxr_element_bytes(in);
    uint32_t row, column;
    qxr_pool_window w;
    w.rows = qxr_taps_inside(work->op, 0, pixel / work->out->extent[2], in->extent[1], &row);
    w.columns = qxr_taps_inside(work->op, 1, pixel % work->out->extent[2], in->extent[2], &column);
    w.first = work->arena + in->arena_offset;
    if (w.rows && w.columns)
        w.first += ((size_t)row * in->extent[2] + column) * bytes;
    w.row = work->op->dilation[0] * in->extent[2] * bytes;
    w.column = work->op->dilation[1] * bytes;
    return w;
}

#endif
