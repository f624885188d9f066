/* What the files of the table look-up convolution share; avx2_table.c says how it works. */
#ifndef QXR_AVX2_TABLE_H
#define QXR_AVX2_TABLE_H

#include <immintrin.h>

#include "x86/avx2.h"
#include "x86/avx2_loops.h"

enum {
    MOST_PIXELS = 8,       /* of a product of avx2_table_bits.c */
    QUAD = 4,              /* inputs of a step */
    LANES = 32,            /* channels of a vector */
    NARROW = 16,
    MOST_PLANES = 2,
    WIDEST = 4,            /* vectors of a block */
    ENTRY_BYTES = 16,      /* a row of the table */
    MOST_ROWS = 8          /* pixels of a product */
};

/* How a weight follows from the bits of its code: lowest + delta[0] bit0 + delta[1] bit1. */
typedef struct qxr_table_coding {
    int32_t lowest, delta[MOST_PLANES];
    uint32_t planes; /* 0: it does not follow so */
} qxr_table_coding;

typedef struct qxr_table_layout {
    qxr_table_coding code;
    uint32_t outer, inner, steps; /* segments; steps of one */
    uint32_t quads;               /* of a pixel */
    uint32_t vectors;
    int narrow;                   /* one vector holds two planes, or two steps */
    int copies;                   /* table rows are copied side by side, so that one load serves two steps */
    int bits;                     /* inputs of one bit: the rows of inputs are entries, see avx2_table_bits.c */
    int symmetric;                /* of those, weights -v and v: the entries are sums of both signs, and 4 */
    uint32_t quad_bytes;          /* of a quad in the rows of inputs: its offset in the table, or its row of it */
    size_t vector_bytes;          /* of all segments */
    size_t sums;                  /* i32 sums[channels]: base times the sum of the weights */
    size_t runs, bytes;           /* u16 runs[block][most_runs]: steps after which 8 bits are full */
    uint32_t most_runs;
} qxr_table_layout;

/* avx2_table_pack.c */
qxr_table_coding qxr_table_coding_of(const qxr_conv *conv);
qxr_table_layout qxr_table_plan(const qxr_conv *conv);
void qxr_table_pack(const qxr_conv *conv, uint8_t *packed);

/* avx2_table_product.c: some pixels times the vectors of a block. */
typedef struct qxr_table_product {
    const uint8_t *row[MOST_ROWS]; /* first quad under the window of each pixel */
    const __m256i *weights;
    const uint16_t *runs;
    size_t outer_step, inner_step; /* bytes from segment to segment */
    uint32_t outer, inner, steps;
    __m256i sums[MOST_ROWS][WIDEST][2]; /* 16 bits: even lanes, odd lanes */
} qxr_table_product;

/* How many pixels of a product; those that count may be fewer. */
static inline uint32_t qxr_table_pixels(uint32_t vectors) { return vectors == 1u ? 8u : vectors == 2u ? 4u : 2u; }
void qxr_table_multiply(qxr_table_product *p, uint32_t vectors, uint32_t count, int copies);

/* avx2_table_rows.c: the inputs under some rows of the result. */
typedef struct qxr_table_rows {
    const uint8_t *quads;      /* [row][column][quad][quad_bytes], 32-byte aligned */
    const uint32_t *rest;      /* [row of the result][column]: lowest weight times the sum of the window */
    uint32_t width;            /* columns with their padding */
} qxr_table_rows;

extern const uint8_t qxr_table[256 * ENTRY_BYTES];
qxr_table_rows qxr_table_inputs(const qxr_conv *conv, const qxr_table_layout *l, const qxr_conv_buffers *buffers,
                                uint32_t pixel, uint32_t pixels);
/* Rows of the result whose inputs are made at a time. */
uint32_t qxr_table_chunk(const qxr_conv *conv, const qxr_table_layout *l);
size_t qxr_table_scratch(const qxr_conv *conv, const qxr_table_layout *l);

/* avx2_table_bits.c: inputs of one bit. */
int qxr_table_bits_suit(const qxr_conv *conv, const qxr_table_layout *l);
int qxr_table_is_symmetric(const qxr_table_layout *l);
void qxr_table_bits_entries(const qxr_table_layout *l, const uint8_t *input, size_t count, uint8_t *to);
void qxr_table_bits_zeros(const qxr_conv *conv, const qxr_table_layout *l, size_t pixels, uint8_t *to);
void qxr_table_bits_tile(const qxr_conv *conv, const qxr_table_layout *l, const qxr_conv_buffers *buffers,
                         const qxr_tile *tile, int32_t *y, int16_t *words, size_t stride);

#endif
