/* Convolution of small codes, several to a byte: what the kernels for bits and for tables share in every vector
 * instruction set.
 *
 * Input rows are packed, with their padding, to `per` codes of `bits` bits a byte; a pixel begins at a byte. The window
 * of an output pixel is then some segments of neighbouring bytes, and its product with 16 channels one loop over these
 * bytes ("steps"), or over `unit` of them at once. Codes behind the last channel of a pixel are 0 and add nothing,
 * whatever their weight; the weights of bytes behind a segment, up to a whole unit, are 0, but the bytes may be any. */
#ifndef QXR_CODES_H
#define QXR_CODES_H

#include "kernels.h"

enum { QXR_CODE_PIXELS = 4, QXR_MOST_CODE_PIXELS = 8, QXR_CODE_CHANNELS = 16 };

/* How a layer's codes are packed. */
typedef struct qxr_code_form {
    uint32_t per, bits; /* codes of a byte: 2, 4 or 8; bits of a code */
    uint32_t unit;      /* bytes of a channel's weights that lie together: 1 or 4 */
    size_t head_bytes;  /* in front of the packed weights, a multiple of 16 */
} qxr_code_form;

/* Sums of windows with 16 channels: out[pixel][channel] = init[channel] + what the kernel adds. */
typedef struct qxr_code_product {
    const uint8_t *window[QXR_MOST_CODE_PIXELS]; /* first byte of each; behind the last pixel: those of the first */
    uint32_t pixels;                        /* that count; others are computed or not, as is convenient */
    uint32_t outer, inner, length;          /* segments: rows of the window, parts of one, bytes of a part */
    size_t outer_step, inner_step;          /* bytes from segment to segment */
    const uint8_t *weights;                 /* [segment][unit][16][byte of the unit] */
    const void *head;                       /* what stands in front of the packed weights */
    const int32_t *init;
    int32_t *out;
    int16_t *words;                         /* null, or where sums of 16 bits go instead */
    size_t out_stride;
} qxr_code_product;

/* What an instruction set gives. */
typedef struct qxr_code_kernel {
    /* Packs codes without gaps, in whole bytes; returns how many, and leaves fewer than 16. */
    size_t (*pack)(const qxr_code_form *form, const uint8_t *codes, size_t count, uint8_t *to);
    void (*product)(const qxr_code_product *product);
    uint32_t pixels; /* of a product */
} qxr_code_kernel;

/* Whether the rows fit a sensible scratch, and there is one group. */
int qxr_codes_suit(const qxr_conv *conv, const qxr_code_form *form);
size_t qxr_codes_scratch(const qxr_conv *conv, const qxr_code_form *form);
void qxr_codes_tile(const qxr_conv *conv, const qxr_code_form *form, const qxr_code_kernel *kernel,
                    const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y);
/* Sums that fit 16 bits, for a kernel whose product writes them. */
void qxr_codes_words(const qxr_conv *conv, const qxr_code_form *form, const qxr_code_kernel *kernel,
                     const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y);

/* Bytes of all segments of a window. */
uint32_t qxr_code_steps(const qxr_conv *conv, const qxr_code_form *form);

/* Packed weights: head, u8 weights[block][segment][unit][16][byte of the unit], i32 init[block][16]. Where a channel's
 * own lie, and how far from the first of them the weights of a step. */
size_t qxr_codes_packed_size(const qxr_conv *conv, const qxr_code_form *form);
uint8_t *qxr_code_weights(const qxr_conv *conv, const qxr_code_form *form, uint8_t *packed, uint32_t channel);
size_t qxr_code_place(const qxr_conv *conv, const qxr_code_form *form, uint32_t step);
int32_t *qxr_code_init(const qxr_conv *conv, const qxr_code_form *form, uint8_t *packed, uint32_t channel);

/* Codes of the weights into their places, weight k of a step shifted by k times `weight_bits`, and base times the sum
 * of the weights into init. */
void qxr_codes_pack(const qxr_conv *conv, const qxr_code_form *form, uint32_t weight_bits, uint8_t *packed);

/* code_bits.c: one-bit codes with two opposite weights, v and -v, by counting bits.
 *
 * With inputs s of 0 and 1, and weights v (2 c - 1) of codes c, the sum is v (#c - #(s xor c)), # the number of ones:
 * v #c is a constant of the channel, part of init, so a step is one exclusive or and one count, for eight inputs of 16
 * channels. Members of qxr_conv_kernel, but for the kernel that `tile` takes. */
enum { QXR_BITS_STEPS = 31 }; /* whose counts, of at most 8, fit a byte */

typedef struct qxr_bits_head {
    int32_t value; /* v */
    int32_t reserved[3];
} qxr_bits_head;

int qxr_code_bits_suit(const qxr_conv *conv);
size_t qxr_code_bits_packed_size(const qxr_conv *conv);
void qxr_code_bits_pack(const qxr_conv *conv, uint8_t *packed);
/* The same in another form, of one-bit codes and with a head for qxr_bits_head. */
void qxr_code_bits_pack_as(const qxr_conv *conv, const qxr_code_form *form, uint8_t *packed);
size_t qxr_code_bits_scratch(const qxr_conv *conv);
void qxr_code_bits_tile(const qxr_conv *conv, const qxr_code_kernel *kernel, const qxr_conv_buffers *buffers,
                        const qxr_tile *tile, int32_t *y);

/* code_table.c: codes of few bits with weights of at most four levels, by looking up sums of products.
 *
 * A byte holds four codes where there are two levels, else two. Its products with every choice of as many weights are
 * 16 sums of 8 bits: one row of a table with a row for each byte. The weights of 16 channels are places in a row, so
 * that one look-up gives the products of a byte with 16 channels. Members of qxr_conv_kernel likewise. */
enum { QXR_TABLE_ROW = 16 };

typedef struct qxr_table_head {
    uint32_t byte_steps; /* rows whose sum fits 8 bits */
    uint32_t reserved[3];
    int8_t row[][QXR_TABLE_ROW];
} qxr_table_head;

int qxr_code_table_suits(const qxr_conv *conv);
size_t qxr_code_table_packed_size(const qxr_conv *conv);
void qxr_code_table_pack(const qxr_conv *conv, uint8_t *packed);
size_t qxr_code_table_scratch(const qxr_conv *conv);
void qxr_code_table_tile(const qxr_conv *conv, const qxr_code_kernel *kernel, const qxr_conv_buffers *buffers,
                         const qxr_tile *tile, int32_t *y);

#endif
