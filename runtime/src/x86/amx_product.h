/* Products of AMX tiles: what the convolutions of amx_conv.c ask of amx_product.c. */
#ifndef QXR_AMX_PRODUCT_H
#define QXR_AMX_PRODUCT_H

#include "x86/avx2.h"

enum {
    RUN = 16,               /* windows of a tile of inputs */
    PAIR = 2 * RUN,
    HALF = 16,              /* channels of a tile of weights */
    BLOCK = 2 * HALF,
    TILE_BYTES = 64,        /* of a window in a tile of inputs */
    TILE_STEPS = 16,        /* the same in steps of four */
    STEP_BYTES = TILE_BYTES * BLOCK, /* of the weights of a block for a tile of inputs */
    CODE_BYTES = STEP_BYTES / 4,     /* the same as codes of two bits */
    LEVEL_BYTES = 16
};

/* Levels of codes of two bits, two codes at a time: [code | other << 2], [other | code << 2]. */
typedef struct qxr_amx_levels {
    int8_t first[LEVEL_BYTES], second[LEVEL_BYTES];
} qxr_amx_levels;

/* Two runs of windows times the weights of a block. Weights are [segment][tile][step][channel][4]; codes the same, in
 * bytes of which each holds those of the bytes i, i + 64, i + 128 and i + 192 of 256. */
typedef struct qxr_amx_product {
    const uint8_t *x[2];           /* under the first window of each run; the second may be null */
    size_t step;                   /* bytes from window to window */
    size_t outer_step, inner_step; /* bytes from segment to segment */
    uint32_t outer, inner, tiles;  /* tiles of one segment */
    const uint8_t *weights;
    const uint8_t *codes;          /* null, or: to be unpacked into `unpacked`, which is `weights` */
    uint8_t *unpacked;
    const qxr_amx_levels *levels;
    const int32_t *init;           /* [BLOCK]: what the sums begin with */
    int right;                     /* whether channels of the second half count */
    void (*beside)(void *context, uint32_t part, uint32_t parts); /* null, or: called after each tile of inputs */
    void *context;
} qxr_amx_product;

/* sums[r][c] = init[c] + sum of the inputs under window r times the weights of channel c; rows of a run that is null, and
 * channels that do not count, are left. */
void qxr_amx_multiply(const qxr_amx_product *p, int32_t (*sums)[BLOCK]);

/* The configuration belongs to the thread, which may be one of the host's: it is set for some products, and given up. */
void qxr_amx_begin(void);
void qxr_amx_end(void);

#endif
