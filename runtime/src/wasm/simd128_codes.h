/* Convolution of small codes, several to a byte: what the kernels for bits and for tables share.
 *
 * Input rows are packed, with their padding, to `per` codes of `bits` bits a byte; a pixel begins at a byte. The window
 * of an output pixel is then some segments of neighbouring bytes, and its product with 16 channels one loop over these
 * bytes ("steps"). Codes behind the last channel of a pixel are 0 and add nothing, whatever their weight. */
#ifndef QXR_SIMD128_CODES_H
#define QXR_SIMD128_CODES_H

#include <wasm_simd128.h>

#include "wasm/simd128.h"

enum { QXR_CODE_PIXELS = 4, QXR_CODE_CHANNELS = 16 };

/* Sums of four windows with 16 channels: out[pixel][channel] = init[channel] + what the kernel adds. */
typedef struct qxr_code_product {
    const uint8_t *window[QXR_CODE_PIXELS]; /* first byte of each */
    uint32_t outer, inner, length;          /* segments: rows of the window, parts of one, bytes of a part */
    size_t outer_step, inner_step;          /* bytes from segment to segment */
    const uint8_t *weights;                 /* [segment][byte][16] */
    const void *head;                       /* what stands in front of the weights */
    const int32_t *init;
    int32_t *out;
    size_t out_stride;
} qxr_code_product;

typedef struct qxr_code_kernel {
    uint32_t per, bits;
    size_t head_bytes;                              /* in front of the packed weights, a multiple of 16 */
    void (*product)(const qxr_code_product *product);
} qxr_code_kernel;

/* Bytes of all segments of a window. */
uint32_t qxr_code_steps(const qxr_conv *conv, const qxr_code_kernel *kernel);

/* Packed weights: head, u8 weights[block][step][16], i32 init[block][16]. */
size_t qxr_codes_packed_size(const qxr_conv *conv, const qxr_code_kernel *kernel);
uint8_t *qxr_code_weights(const qxr_conv *conv, const qxr_code_kernel *kernel, uint8_t *packed, uint32_t channel);
int32_t *qxr_code_init(const qxr_conv *conv, const qxr_code_kernel *kernel, uint8_t *packed, uint32_t channel);

/* Codes of the weights into their places, weight k of a step shifted by k times `weight_bits`, and base times the sum
 * of the weights into init. */
void qxr_codes_pack(const qxr_conv *conv, const qxr_code_kernel *kernel, uint32_t weight_bits, uint8_t *packed);

/* Whether the rows fit a sensible scratch, and there is one group. */
int qxr_codes_suit(const qxr_conv *conv, const qxr_code_kernel *kernel);
size_t qxr_codes_scratch(const qxr_conv *conv, const qxr_code_kernel *kernel);
void qxr_codes_tile(const qxr_conv *conv, const qxr_code_kernel *kernel, const qxr_conv_buffers *buffers,
                    const qxr_tile *tile, int32_t *y);

#endif
