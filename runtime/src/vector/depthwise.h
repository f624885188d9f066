/* Depthwise convolution (one input and one output channel a group), 8 channels at a time: what ARM and WebAssembly
 * share. An instruction set multiplies one or two taps in a step. */
#ifndef QXR_DEPTHWISE_H
#define QXR_DEPTHWISE_H

#include "vector/rows.h"

enum { QXR_DEPTHWISE_CHANNELS = 8 };

/* out[pixel][channel] = sums[channel] + sum over taps of input times weight, for eight channels. */
typedef struct qxr_depthwise_product {
    qxr_window_walk windows; /* at the first pixel, the first of the eight channels */
    uint32_t pixels, bytes;  /* bytes: of an input, 1 (u8) or 2 (i16) */
    uint32_t steps;
    const size_t *offset;    /* [steps][taps of a step]: bytes from the window's first element to each tap */
    const int16_t *weights;  /* [steps][channel][taps of a step]; 0 for a tap behind the last */
    const int32_t *sums;     /* base times the sum of the weights */
    int32_t *out;
    size_t out_stride;
} qxr_depthwise_product;

typedef struct qxr_depthwise_kernel {
    uint32_t taps; /* of a step */
    void (*product)(const qxr_depthwise_product *product);
} qxr_depthwise_kernel;

/* Members of qxr_conv_kernel, but for the kernel that some take. */
int qxr_depthwise_suits(const qxr_conv *conv);
size_t qxr_depthwise_packed_size(const qxr_conv *conv, const qxr_depthwise_kernel *kernel);
void qxr_depthwise_pack(const qxr_conv *conv, const qxr_depthwise_kernel *kernel, uint8_t *packed);
size_t qxr_depthwise_scratch(const qxr_conv *conv);
void qxr_depthwise_tile(const qxr_conv *conv, const qxr_depthwise_kernel *kernel, const qxr_conv_buffers *buffers,
                        const qxr_tile *tile, int32_t *y);

#endif
