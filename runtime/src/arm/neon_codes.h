/* Convolution of small codes, several to a byte: what the kernels for bits and for tables share.
 *
 * Input rows are packed, with their padding, to `per` codes of `bits` bits a byte; a pixel begins at a byte. Then the windows
 * of four output pixels are laid out one behind the other, so that the product of a window with 16 channels is one loop
 * over its bytes ("steps"). Codes behind the last channel of a pixel are 0 and add nothing, whatever their weight. */
#ifndef QXR_NEON_CODES_H
#define QXR_NEON_CODES_H

#include <arm_neon.h>

#include "arm/neon.h"

enum { QXR_CODE_PIXELS = 4, QXR_CODE_CHANNELS = 16 };

/* Sums of windows with 16 channels: out[pixel][channel] = init[channel] + what the kernel adds. */
typedef struct qxr_code_product {
    const uint8_t *window[QXR_CODE_PIXELS]; /* behind the last pixel: those of the first again */
    uint32_t pixels;        /* that count; others are computed or not, as is convenient */
    uint32_t steps;
    const uint8_t *weights; /* [steps][16] */
    const void *head;       /* what the kernel wrote in front of the packed weights */
    const int32_t *init;
    int32_t *out;
    size_t out_stride;
} qxr_code_product;

typedef struct qxr_code_kernel {
    uint32_t per, bits;    /* per: 2, 4 or 8 */
    size_t head_bytes;     /* in front of the packed weights, a multiple of 16 */
    void (*product)(const qxr_code_product *product);
} qxr_code_kernel;

/* Loops over the pixels of a product are unrolled, so that sums stay in registers: `pixels` is a constant in each use. */
#define QXR_CODE_INLINE static inline __attribute__((always_inline))
#define QXR_CODE_PIXEL(q) _Pragma("GCC unroll 4") for (uint32_t q = 0; q < pixels; q++)

/* Bytes of a window. */
uint32_t qxr_code_steps(const qxr_conv *conv, const qxr_code_kernel *kernel);

/* Packed weights: head, u8 weights[block][step][16], i32 init[block][16]. Where a channel's own lie. */
size_t qxr_codes_packed_size(const qxr_conv *conv, const qxr_code_kernel *kernel);
uint8_t *qxr_code_weights(const qxr_conv *conv, const qxr_code_kernel *kernel, uint8_t *packed, uint32_t channel);
int32_t *qxr_code_init(const qxr_conv *conv, const qxr_code_kernel *kernel, uint8_t *packed, uint32_t channel);

/* Codes of the weights into their places, weight k of a step shifted by k times `weight_bits`, and base times the sum of
 * the weights into init. */
void qxr_codes_pack(const qxr_conv *conv, const qxr_code_kernel *kernel, uint32_t weight_bits, uint8_t *packed);

/* Whether rows and windows fit a sensible scratch, and there is one group. */
int qxr_codes_suit(const qxr_conv *conv, const qxr_code_kernel *kernel);
size_t qxr_codes_scratch(const qxr_conv *conv, const qxr_code_kernel *kernel);
void qxr_codes_tile(const qxr_conv *conv, const qxr_code_kernel *kernel, const qxr_conv_buffers *buffers,
                    const qxr_tile *tile, int32_t *y);

#endif
