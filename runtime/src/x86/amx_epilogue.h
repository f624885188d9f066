/* What follows a convolution in its group, as one pass over sums that are still in the nearest cache. */
#ifndef QXR_AMX_EPILOGUE_H
#define QXR_AMX_EPILOGUE_H

#ifdef QXR_EMULATE
#include "emulate_avx512.h"
#else
#include <immintrin.h>
#endif

#include "x86/amx_product.h"

enum { MOST_THRESHOLDS = 15 /* levels are looked up among sixteen */ };

/* thresholds(clip(rescale(sum) + border bias + rescale(shortcut))), of which every part may be missing. */
typedef struct qxr_epilogue {
    const qxr_chain *chain;
    const qxr_tensor *made, *out;      /* of the convolution, of the group */
    const qxr_tensor *shortcut;        /* in the arena */
    const qxr_op *rescale, *bias, *shortcut_rescale, *threshold;
    int32_t lo, hi;                    /* of the clip */
} qxr_epilogue;

/* (x multiplier + addend) >> shift of sixteen channels, for even and odd ones; within lo and hi. */
typedef struct qxr_rescale16 {
    __m512i multiplier[2], addend[2];
    uint32_t shift;
    int32_t lo, hi;
} qxr_rescale16;

/* Constants of sixteen channels. */
typedef struct qxr_epilogue_column {
    qxr_rescale16 rescale, shortcut;
    __m512i table;                     /* of a shortcut of few codes: what each adds */
    __m512i threshold[MOST_THRESHOLDS], sign;
    __m512i levels;                    /* of the codes, less the base of the result */
} qxr_epilogue_column;

typedef struct qxr_epilogue_block {
    const qxr_epilogue *epilogue;
    uint32_t channel;
    qxr_steps steps;
    int looks_up;                      /* the shortcut, in a table */
    int is_usual;                      /* no clamp or clip changes a code, levels ascend by one, no channel is turned */
    qxr_epilogue_column column[BLOCK / HALF];
} qxr_epilogue_block;

/* Reads the chain behind a convolution whose tile has whole blocks of channels; 0 where it is of another form, or takes
 * more than 32 bits. */
int qxr_plan_epilogue(const qxr_chain *chain, const qxr_conv *conv, const qxr_tile *tile, qxr_epilogue *e);

/* The constants of a block. */
void qxr_read_epilogue(const qxr_epilogue *e, uint32_t channel, qxr_epilogue_block *block);

/* Sums of some pixels of the tensor, from `pixel` on, into the arena. */
void qxr_apply_epilogue(const qxr_epilogue_block *block, size_t pixel, int32_t (*sums)[BLOCK], size_t count);

#endif
