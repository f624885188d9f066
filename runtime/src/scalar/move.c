/* Operators that move values without computing, in portable C. */
#include "scalar/scalar.h"

#include <string.h>

static void load_pixel(const qxr_work *work, const qxr_tensor *in, size_t pixel, size_t channel, size_t count,
                       int32_t *y)
{
    qxr_scalar_load_run(in, work->arena + in->arena_offset, pixel * in->extent[0] + channel, count, y);
}

void qxr_scalar_pad(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_tensor *in = work->in[0];
    const uint32_t *before = (const uint32_t *)(const void *)qxr_constants(work);
    const uint32_t width = work->out->extent[2];
    const uint32_t end = before[0] + in->extent[0];
    const uint32_t first = qxr_max(tile->channel, before[0]);
    const uint32_t last = qxr_min(tile->channel + tile->channels, end);
    memset(y, 0, (size_t)tile->pixels * tile->channels * sizeof *y);
    for (uint32_t p = 0; p < tile->pixels && first < last; p++) {
        const uint32_t row = (tile->pixel + p) / width - before[1], column = (tile->pixel + p) % width - before[2];
        if (row < in->extent[1] && column < in->extent[2])
            load_pixel(work, in, (size_t)row * in->extent[2] + column, first - before[0], last - first,
                       y + (size_t)p * tile->channels + (first - tile->channel));
    }
}

void qxr_scalar_slice(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_tensor *in = work->in[0];
    const uint32_t *start = (const uint32_t *)(const void *)qxr_constants(work), *step = start + 3;
    const uint32_t width = work->out->extent[2];
    for (uint32_t p = 0; p < tile->pixels; p++, y += tile->channels) {
        const size_t row = start[1] + (size_t)((tile->pixel + p) / width) * step[1];
        const size_t column = start[2] + (size_t)((tile->pixel + p) % width) * step[2];
        const size_t channel = start[0] + (size_t)tile->channel * step[0], pixel = row * in->extent[2] + column;
        if (step[0] == 1u) {
            load_pixel(work, in, pixel, channel, tile->channels, y);
            continue;
        }
        for (uint32_t c = 0; c < tile->channels; c++)
            load_pixel(work, in, pixel, channel + (size_t)c * step[0], 1u, y + c);
    }
}

/* Concatenation of channels: the part of the tile that lies in one input, at channel `offset` of the result. */
static void join_channels(const qxr_work *work, const qxr_tile *tile, const qxr_tensor *in, uint32_t offset, int32_t *y)
{
    const uint32_t first = qxr_max(tile->channel, offset);
    const uint32_t last = qxr_min(tile->channel + tile->channels, offset + in->extent[0]);
    for (uint32_t p = 0; p < tile->pixels && first < last; p++)
        load_pixel(work, in, tile->pixel + p, first - offset, last - first,
                   y + (size_t)p * tile->channels + (first - tile->channel));
}

/* Concatenation of rows (axis 1) or columns (axis 2): the pixels of the tile that lie in one input. */
static void join_pixels(const qxr_work *work, const qxr_tile *tile, const qxr_tensor *in, uint32_t offset, int32_t *y)
{
    const uint32_t axis = (uint32_t)work->op->first, width = work->out->extent[2];
    for (uint32_t p = 0; p < tile->pixels; p++) {
        uint32_t at[2] = {(tile->pixel + p) / width, (tile->pixel + p) % width};
        at[axis - 1u] -= offset;
        if (at[axis - 1u] < in->extent[axis])
            load_pixel(work, in, (size_t)at[0] * in->extent[2] + at[1], tile->channel, tile->channels,
                       y + (size_t)p * tile->channels);
    }
}

void qxr_scalar_concat(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const uint16_t *inputs = (const uint16_t *)(const void *)qxr_constants(work);
    const uint32_t axis = (uint32_t)work->op->first;
    uint32_t offset = 0;
    for (uint32_t i = 0; i < work->op->count; i++) {
        const qxr_tensor *in = qxr_get_tensor(work->model, inputs[i]);
        if (axis == 0u)
            join_channels(work, tile, in, offset, y);
        else
            join_pixels(work, tile, in, offset, y);
        offset += in->extent[axis];
    }
}

/* Element (c, p) of the result is number c P + p in row-major order, P its pixels; of the input, number c' P' + p'. */
void qxr_scalar_reshape(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_tensor *in = work->in[0];
    const uint32_t pixels = qxr_pixels(work->out), in_pixels = qxr_pixels(in);
    const uint32_t more_channels = pixels / in_pixels, more_pixels = pixels % in_pixels;
    for (uint32_t p = 0; p < tile->pixels; p++, y += tile->channels) {
        const size_t number = (size_t)tile->channel * pixels + tile->pixel + p;
        size_t channel = number / in_pixels, pixel = number % in_pixels;
        if (pixels == in_pixels) {
            load_pixel(work, in, pixel, channel, tile->channels, y);
            continue;
        }
        for (uint32_t c = 0; c < tile->channels; c++) {
            load_pixel(work, in, pixel, channel, 1u, y + c);
            channel += more_channels;
            pixel += more_pixels;
            if (pixel >= in_pixels) {
                pixel -= in_pixels;
                channel++;
            }
        }
    }
}

/* Axis i of the result is axis a_i of the input. */
void qxr_scalar_transpose(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_tensor *in = work->in[0];
    const uint32_t axes = work->op->parameter, width = work->out->extent[2];
    const size_t step[3] = {1u, (size_t)in->extent[2] * in->extent[0], in->extent[0]}; /* of the input's axes, stored */
    const uint8_t *data = work->arena + in->arena_offset;
    for (uint32_t p = 0; p < tile->pixels; p++, y += tile->channels) {
        const uint32_t row = (tile->pixel + p) / width, column = (tile->pixel + p) % width;
        const size_t first = row * step[axes >> 2 & 3u] + column * step[axes >> 4 & 3u];
        for (uint32_t c = 0; c < tile->channels; c++)
            qxr_scalar_load_run(in, data, first + (tile->channel + c) * step[axes & 3u], 1u, y + c);
    }
}
