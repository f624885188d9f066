/* Models of one convolution with random weights, made in memory from a row of the table. */
#ifndef QXR_CONV_MODEL_H
#define QXR_CONV_MODEL_H

#include "kernels.h"

typedef struct qxr_shape {
    const char *name;
    uint32_t channels, height, width, outputs, window, stride, padding, dilation, groups, bits, entries, storage;
    int32_t lo, hi;
} qxr_shape;

typedef struct qxr_conv_model {
    qxr_model model;
    qxr_conv conv;
    uint8_t *bytes; /* of the model */
    uint8_t *input; /* as stored in an arena, 64 bytes more than its size, all at most as large as the range says */
    double macs;
} qxr_conv_model;

/* Everything random comes from the seed. Exits where memory is short. */
void qxr_make_conv_model(const qxr_shape *shape, uint32_t seed, qxr_conv_model *made);
void qxr_free_conv_model(qxr_conv_model *made);

#endif
