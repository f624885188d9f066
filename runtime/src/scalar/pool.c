/* Maximum and sum over windows, in portable C. */
#include "scalar/scalar.h"

enum { RUN = 64 }; /* channels of a window that are loaded at once */

static void join(int32_t *y, const int32_t *x, uint32_t count, int is_max)
{
    for (uint32_t c = 0; c < count; c++) {
        if (!is_max)
            y[c] = qxr_wrap_add(y[c], x[c]);
        else if (x[c] > y[c])
            y[c] = x[c];
    }
}

/* One output pixel, `count` channels from `channel` on. Taps in the padding neither win a maximum nor add to a sum. */
static void pool_window(const qxr_work *work, uint32_t pixel, uint32_t channel, uint32_t count, int is_max, int32_t *y)
{
    const qxr_tensor *in = work->in[0];
    const uint32_t row = pixel / work->out->extent[2], column = pixel % work->out->extent[2];
    int32_t x[RUN];
    for (uint32_t c = 0; c < count; c++)
        y[c] = is_max ? INT32_MIN : 0;
    for (uint32_t v = 0; v < work->op->window[0]; v++) {
        const uint32_t in_row = qxr_input_at(work->op, 0, row, v);
        for (uint32_t h = 0; h < work->op->window[1] && in_row < in->extent[1]; h++) {
            const uint32_t in_column = qxr_input_at(work->op, 1, column, h);
            if (in_column >= in->extent[2])
                continue;
            const size_t first = ((size_t)in_row * in->extent[2] + in_column) * in->extent[0] + channel;
            qxr_scalar_load_run(in, work->arena + in->arena_offset, first, count, x);
            join(y, x, count, is_max);
        }
    }
}

static void pool(const qxr_work *work, const qxr_tile *tile, int is_max, int32_t *y)
{
    for (uint32_t p = 0; p < tile->pixels; p++)
        for (uint32_t c = 0; c < tile->channels; c += RUN)
            pool_window(work, tile->pixel + p, tile->channel + c, qxr_min(RUN, tile->channels - c), is_max,
                        y + (size_t)p * tile->channels + c);
}

void qxr_scalar_max_pool(const qxr_work *work, const qxr_tile *tile, int32_t *y) { pool(work, tile, 1, y); }

void qxr_multiply_factors(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const uint32_t width = work->out->extent[2];
    const int32_t *rows = qxr_constants32(work), *columns = rows + work->out->extent[1];
    for (uint32_t p = 0; p < tile->pixels && work->op->flags & QXR_FACTORS; p++, y += tile->channels) {
        const int32_t factor = qxr_wrap_mul(rows[(tile->pixel + p) / width], columns[(tile->pixel + p) % width]);
        for (uint32_t c = 0; c < tile->channels; c++)
            y[c] = qxr_wrap_mul(y[c], factor);
    }
}

void qxr_scalar_sum_pool(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    pool(work, tile, 0, y);
    qxr_multiply_factors(work, tile, y);
}
