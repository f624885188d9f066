/* Input rows for the convolutions of vector instruction sets: read in place, or copied with their padding and in the width
 * the kernel takes. */
#include "vector/rows.h"

#include <string.h>

enum {
    COPY_BYTES = 48 << 10,      /* input rows that are copied at a time: they stay in the nearer caches */
    RUN_COPY_BYTES = 256 << 10, /* the same for runs, which find what they read a cache further away early enough */
    SLACK = 64                  /* behind the copy: the last segment is read in whole steps, and in whole vectors */
};

uint32_t qxr_input_planes(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    return kernel->bytes == 2u && conv->input_peak > 32767u && qxr_storage(conv->in) == QXR_I32 ? 2u : 1u;
}

/* Whether the windows of all rows lie at equal distances, and a run of them in the tensor. */
static int runs_through(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    const uint64_t row = (uint64_t)conv->op->stride[0] * conv->in->extent[2];
    return row % conv->op->stride[1] == 0u &&
           (conv->out->extent[1] - 1u) * (row / conv->op->stride[1]) + conv->out->extent[2] >= kernel->run;
}

int qxr_reads_arena(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    const qxr_op *op = conv->op;
    const int padded = (op->padding[0] | op->padding[1] | op->padding[2] | op->padding[3]) != 0;
    const int joined = op->groups == 1u && op->dilation[1] == 1u;
    const uint32_t segment = joined ? conv->group_in * op->window[1] : conv->group_in;
    return !padded && qxr_element_bytes(conv->in) == kernel->bytes &&
           segment % (kernel->unit * qxr_max(kernel->multiple, 1u)) == 0u &&
           (kernel->run == 0u || runs_through(conv, kernel));
}

uint32_t qxr_rows_that_fit(const qxr_conv *conv, size_t bytes, size_t pitch)
{
    const size_t room = bytes / pitch, first = qxr_input_rows(conv, 1);
    const size_t rows = room > first ? (room - first) / conv->op->stride[0] + 1u : 1u;
    return rows < conv->out->extent[1] ? (uint32_t)rows : conv->out->extent[1];
}

/* Of a copied row, all planes. */
static size_t row_bytes(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    return qxr_padded_width(conv) * conv->in->extent[0] * kernel->bytes * qxr_input_planes(conv, kernel);
}

/* Output rows whose input rows are copied at a time. */
static uint32_t chunk_rows(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    return qxr_rows_that_fit(conv, kernel->run ? RUN_COPY_BYTES : COPY_BYTES, row_bytes(conv, kernel));
}

/* Bytes behind the copy that are read. */
static size_t slack(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    return SLACK + (size_t)kernel->run * conv->op->stride[1] * conv->in->extent[0] * kernel->bytes;
}

size_t qxr_rows_scratch(const qxr_conv *conv, const qxr_row_kernel *kernel)
{
    if (qxr_reads_arena(conv, kernel))
        return 0;
    return qxr_input_rows(conv, chunk_rows(conv, kernel)) * row_bytes(conv, kernel) + slack(conv, kernel);
}

uint32_t qxr_chunk_pixels(const qxr_conv *conv, const qxr_row_kernel *kernel, uint32_t pixel, uint32_t pixels)
{
    const uint32_t width = conv->out->extent[2];
    if (qxr_reads_arena(conv, kernel))
        return pixels;
    return qxr_min(pixels, (pixel / width + chunk_rows(conv, kernel)) * width - pixel);
}

/* Elements of the arena in 16 bits: plane 0 holds the low half, plane 1 what that leaves, both signed. */
static void widen(const qxr_conv *conv, const uint8_t *from, size_t count, int16_t *low, int16_t *high)
{
    const int32_t base = conv->base;
    switch (qxr_storage(conv->in)) {
    case QXR_U8:
        for (size_t i = 0; i < count; i++)
            low[i] = (int16_t)(from[i] + base);
        break;
    case QXR_I16:
        memcpy(low, from, count * sizeof *low);
        break;
    default:
        for (size_t i = 0; i < count; i++) {
            const int32_t value = ((const int32_t *)(const void *)from)[i];
            low[i] = (int16_t)value;
            if (high)
                high[i] = (int16_t)(((int64_t)value - (int16_t)value) >> 16);
        }
        break;
    }
}

static void fill_padding(const qxr_conv *conv, const qxr_row_kernel *kernel, uint8_t *to, size_t elements)
{
    /* Real zero: the byte -base, or the number 0. */
    memset(to, kernel->bytes == 1u ? -conv->base : 0, elements * kernel->bytes);
}

/* One input row with its padding, every plane. */
static void copy_row(const qxr_conv *conv, const qxr_row_kernel *kernel, const uint8_t *input, uint32_t row,
                     uint8_t *to, size_t plane)
{
    const size_t channels = conv->in->extent[0], count = conv->in->extent[2] * channels;
    const size_t left = conv->op->padding[2] * channels, right = conv->op->padding[3] * channels;
    const uint32_t planes = qxr_input_planes(conv, kernel);
    const uint8_t *from = input + (size_t)row * count * qxr_element_bytes(conv->in);
    uint8_t *middle = to + left * kernel->bytes;
    const int inside = row < conv->in->extent[1];
    for (uint32_t p = 0; p < planes; p++) {
        fill_padding(conv, kernel, to + p * plane, inside ? left : left + count + right);
        if (inside)
            fill_padding(conv, kernel, middle + p * plane + count * kernel->bytes, right);
    }
    if (!inside)
        return;
    if (kernel->bytes == 1u)
        memcpy(middle, from, count);
    else
        widen(conv, from, count, (int16_t *)(void *)middle, planes == 2u ? (int16_t *)(void *)(middle + plane) : NULL);
}

qxr_window_rows qxr_gather_rows(const qxr_conv *conv, const qxr_row_kernel *kernel, const qxr_conv_buffers *buffers,
                                uint32_t pixel, uint32_t pixels)
{
    const uint32_t width = conv->out->extent[2], stride = conv->op->stride[0];
    const uint32_t first = pixel / width, count = (pixel + pixels - 1u) / width - first + 1u;
    qxr_window_rows rows = {0};
    uint8_t *copy = buffers->scratch;
    rows.pixel = (size_t)conv->in->extent[0] * kernel->bytes;
    rows.first_out_row = first;
    if (qxr_reads_arena(conv, kernel)) {
        rows.pitch = rows.pixel * conv->in->extent[2];
        rows.data = buffers->input + (size_t)first * stride * rows.pitch;
        return rows;
    }
    rows.pitch = rows.pixel * qxr_padded_width(conv);
    rows.plane = qxr_input_rows(conv, count) * rows.pitch;
    rows.data = copy;
    for (uint32_t i = 0; i < qxr_input_rows(conv, count); i++)
        copy_row(conv, kernel, buffers->input, first * stride + i - conv->op->padding[0], copy + i * rows.pitch,
                 rows.plane);
    /* Read, and multiplied by zero: any bytes would do, but tools that look for uninitialised memory cannot know. */
    memset(copy + qxr_input_planes(conv, kernel) * rows.plane, 0, slack(conv, kernel));
    return rows;
}
