/* What the files of the Winograd convolution share; avx2_winograd.c says how it works. */
#ifndef QXR_AVX2_WINOGRAD_H
#define QXR_AVX2_WINOGRAD_H

#include <immintrin.h>

#include "x86/avx2.h"

#define INLINE static inline __attribute__((always_inline)) /* arguments that are constants make loops of their own */

enum {
    OUTPUTS = 4,      /* neighbouring results of a row, made together: a block */
    BLOCKS = 4,       /* of a product */
    CHANNELS = 16,    /* of a product */
    KINDS = 8,        /* sums of a block; A0 to A3 belong to one result each, M1 to M4 to several */
    A0 = 0, A3 = 3, M1 = 4, M2 = 5, M3 = 6, M4 = 7,
    MOST_TAPS = 16,   /* of a row of the window */
    FACTOR = 24,      /* the sums are so many times the results */
    LARGEST_WEIGHT = 32767 / FACTOR,
    DIGIT_BITS = 11   /* wider weights are low + 2^11 high */
};

/* Taps of one row of the window, `stride` columns apart, that share products: one, two or three. */
typedef struct qxr_winograd_group {
    uint32_t tap, taps;
    uint32_t at[KINDS]; /* first element of the block that holds the group's part of each kind */
} qxr_winograd_group;

typedef struct qxr_winograd_layout {
    qxr_winograd_group group[MOST_TAPS];
    uint32_t groups;
    uint32_t first[KINDS], steps[KINDS]; /* first element of a block; pairs of elements in one row of the window */
    uint32_t all_steps;                  /* of every kind and every row of the window */
    uint32_t elements;                   /* of a block */
    uint32_t blocks;                     /* of a row */
    uint32_t planes;
    size_t pitch;                        /* bytes of a row of blocks */
    size_t weights;                      /* i32 offsets[all_steps] lie before them */
    size_t plane_bytes, bytes;           /* of 16 channels; of everything */
} qxr_winograd_layout;

static inline int qxr_winograd_has(const qxr_winograd_group *group, uint32_t kind)
{
    return group->taps == 1u ? kind <= A3 : group->taps == 3u ? kind == A0 || kind >= A3 : kind == A0 || kind >= M1;
}

/* avx2_winograd_pack.c */
qxr_winograd_layout qxr_winograd_plan(const qxr_conv *conv);
void qxr_winograd_pack(const qxr_conv *conv, uint8_t *packed);

#endif
