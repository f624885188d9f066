/* Convolution as products of input rows and packed weights; what every vector instruction set shares.
 *
 * The inputs under a window are `outer` x `inner` segments of neighbouring elements: one a window row where its taps are
 * neighbours (no dilation, one group), else one a tap. Segments are read from the arena itself where nothing has to be
 * padded or converted, else from a copy of the input rows with their padding. Weights are packed as
 * [group][block of channels][plane][segment][step][channel of the block][unit], zeros behind each segment, so that a
 * step multiplies `unit` inputs by the same for all channels of a block. Weights too wide for one number are split into
 * signed planes, w = sum of plane[p] << (p bits), inputs likewise; the partial sums are joined in wrapping arithmetic. */
#ifndef QXR_ROWS_H
#define QXR_ROWS_H

#include "kernels.h"

enum {
    QXR_MOST_ROWS = 32,
    QXR_WIDEST_BLOCK = 32,
    QXR_PACK_HEAD = 64
};

/* What `pack` finds out, at the head of the packed weights. */
typedef struct qxr_pack_head {
    uint32_t widen_after; /* steps whose sum of products is proven to fit 16 bits */
    uint32_t planes;
} qxr_pack_head;

/* out[r][c] = init[r][c] + sum over segments and steps of inputs of row r times weights of channel c. */
typedef struct qxr_product {
    const uint8_t *row[QXR_MOST_ROWS]; /* first element under the window of each pixel */
    uint32_t count, lanes;         /* rows and channels that count; others are computed or not, as is convenient */
    const uint8_t *weights;
    size_t outer_step, inner_step; /* bytes from segment to segment */
    uint32_t outer, inner, steps;  /* steps of one segment */
    uint32_t widen_after;
    const int32_t *init;           /* [r init_stride + c] */
    size_t init_stride;            /* 0: all rows begin with the same */
    int32_t *out;                  /* [r out_stride + c] */
    size_t out_stride;
} qxr_product;

typedef struct qxr_row_kernel {
    uint32_t unit;        /* inputs of a step */
    uint32_t bytes;       /* of an input and of a weight: 1 (u8 x s8) or 2 (i16 x i16) */
    uint32_t rows, block; /* pixels and channels of a product */
    void (*product)(const qxr_product *product); /* null: the kernel has loops of its own */
    uint32_t multiple;    /* of the steps of a segment; 0: any number */
    uint32_t run;         /* windows that are read at equal distances, the last of them of the image or not; 0: none */
} qxr_row_kernel;

/* Where the packed weights of a convolution lie. */
typedef struct qxr_rows_layout {
    uint32_t outer, inner, length; /* segments, and elements of one */
    uint32_t steps, blocks;        /* steps of a segment, blocks of a group */
    uint32_t planes;
    size_t plane_bytes;            /* of one block */
    size_t sums;                   /* offset of i32 sums[group][block][channel]: base times the sum of the weights */
    size_t bytes;
} qxr_rows_layout;

qxr_rows_layout qxr_rows_plan(const qxr_conv *conv, const qxr_row_kernel *kernel);

/* Planes of weights, of `bytes` each, that hold every weight up to the peak. */
uint32_t qxr_weight_planes(const qxr_conv *conv, const qxr_row_kernel *kernel);

/* Planes of 16 bits of the inputs; bytes need one. */
uint32_t qxr_input_planes(const qxr_conv *conv, const qxr_row_kernel *kernel);

static inline size_t qxr_padded_width(const qxr_conv *conv)
{
    return (size_t)conv->in->extent[2] + conv->op->padding[2] + conv->op->padding[3];
}

/* Input rows under some neighbouring output rows, padding included. */
static inline size_t qxr_input_rows(const qxr_conv *conv, size_t out_rows)
{
    return (out_rows - 1u) * conv->op->stride[0] + (size_t)(conv->op->window[0] - 1u) * conv->op->dilation[0] + 1u;
}

/* Output rows whose input rows, of `pitch` bytes, fit so many bytes; at least one. */
uint32_t qxr_rows_that_fit(const qxr_conv *conv, size_t bytes, size_t pitch);

/* Where the input rows under some output pixels lie. */
typedef struct qxr_window_rows {
    const uint8_t *data;      /* of plane 0, input row `first_row`, column -left padding */
    size_t pitch, pixel;      /* bytes of an input row, of a pixel */
    size_t plane;             /* bytes from plane to plane */
    uint32_t first_out_row;
} qxr_window_rows;

/* Reads the arena directly or copies into `scratch`; `pixels` at least 1, all within qxr_chunk_pixels. */
qxr_window_rows qxr_gather_rows(const qxr_conv *conv, const qxr_row_kernel *kernel, const qxr_conv_buffers *buffers,
                                uint32_t pixel, uint32_t pixels);
/* Pixels from `pixel` on, at most `pixels`, whose input rows fit the scratch. */
uint32_t qxr_chunk_pixels(const qxr_conv *conv, const qxr_row_kernel *kernel, uint32_t pixel, uint32_t pixels);
/* Bytes of scratch for the copies; 0 where the arena is read directly. More than QXR_ROWS_LIMIT: do not use. */
size_t qxr_rows_scratch(const qxr_conv *conv, const qxr_row_kernel *kernel);
#define QXR_ROWS_LIMIT ((size_t)1 << 26)

/* Whether input rows are read in place. */
int qxr_reads_arena(const qxr_conv *conv, const qxr_row_kernel *kernel);

/* First byte under the window of an output pixel. */
static inline const uint8_t *qxr_window_at(const qxr_conv *conv, const qxr_window_rows *rows, uint32_t pixel)
{
    const uint32_t width = conv->out->extent[2], y = pixel / width - rows->first_out_row, x = pixel % width;
    return rows->data + (size_t)y * conv->op->stride[0] * rows->pitch + (size_t)x * conv->op->stride[1] * rows->pixel;
}

/* Steps through output pixels and what lies under their windows: divisions once, not for each. */
typedef struct qxr_window_walk {
    const uint8_t *at;     /* first byte under the window of this pixel */
    size_t step, row_step; /* bytes to the next pixel of the row; from the last of a row to the first of the next */
    uint32_t column, width;
} qxr_window_walk;

static inline qxr_window_walk qxr_walk_windows(const qxr_conv *conv, const qxr_window_rows *rows, uint32_t pixel)
{
    const uint32_t width = conv->out->extent[2];
    const size_t step = conv->op->stride[1] * rows->pixel;
    const qxr_window_walk w = {
        qxr_window_at(conv, rows, pixel), step, conv->op->stride[0] * rows->pitch - (width - 1u) * step, pixel % width,
        width,
    };
    return w;
}

static inline const uint8_t *qxr_next_window(qxr_window_walk *w)
{
    const uint8_t *at = w->at;
    if (++w->column == w->width) {
        w->column = 0;
        w->at += w->row_step;
    } else {
        w->at += w->step;
    }
    return at;
}

int qxr_rows_suit(const qxr_conv *conv, const qxr_row_kernel *kernel);
size_t qxr_rows_packed_size(const qxr_conv *conv, const qxr_row_kernel *kernel);
void qxr_rows_pack(const qxr_conv *conv, const qxr_row_kernel *kernel, uint8_t *packed);
void qxr_rows_tile(const qxr_conv *conv, const qxr_row_kernel *kernel, const qxr_conv_buffers *buffers,
                   const qxr_tile *tile, int32_t *y);

#endif
