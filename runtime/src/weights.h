/* The packed weights of a convolution (docs/packed-format.md, section 5), as the loader, the scalar kernels and the
 * prepackers read them. */
#ifndef QXR_WEIGHTS_H
#define QXR_WEIGHTS_H

#include "format.h"

typedef struct qxr_weights {
    const int32_t *codebook; /* null where the rows hold the weights themselves */
    const uint8_t *rows;
    uint64_t row_bytes;
    uint64_t length;         /* weights of a row: kh kw I/groups */
    uint32_t row_count;      /* output channels */
    uint32_t entries;        /* of the codebook */
    uint32_t bits;
    int base3;
} qxr_weights;

/* Where the weights of operator `index`, a convolution, lie. Of it only the parameters must have been checked. */
qxr_weights qxr_weights_of(const qxr_model *model, uint32_t index);

/* Bytes of codebook and rows together. No overflow while length is below 2^31 and row_count at most 2^29. */
static inline uint64_t qxr_weights_bytes(const qxr_weights *w)
{
    return 4u * (uint64_t)w->entries + w->row_count * w->row_bytes;
}

/* codes[i] = code of weight first + i of a row, or the weight where there is no codebook; first + count <= length. */
void qxr_weight_codes(const qxr_weights *w, uint32_t row, uint64_t first, uint32_t count, int32_t *codes);

/* values[i] = weight first + i of a row; first + count <= length. */
void qxr_weight_values(const qxr_weights *w, uint32_t row, uint64_t first, uint32_t count, int32_t *values);

#endif
