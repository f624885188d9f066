/* Chains that end in few thresholds and bytes, computed without storing anything between. */
#ifndef QXR_AVX2_CHAIN_BYTES_H
#define QXR_AVX2_CHAIN_BYTES_H

#include "x86/avx2.h"
#include "x86/avx2_words.h"

/* What such a chain computes: the thresholds of made, of made * m + bias, of rescaled(made) + rescaled(other), or of
 * rescaled(made) + clipped(other), which is kept. */
typedef struct qxr_byte_chain {
    qxr_work threshold;
    qxr_work rescale[2]; /* of what the group's first operator made, and of the other; op null: taken as it is */
    qxr_work sum;        /* addition or bias; op null: none */
    const qxr_tensor *made, *other; /* other: null where nothing is added but a bias */
    int is_stream;       /* the other has 32 bits; its rescale may be a clip, and the sum is stored */
    int is_wide;         /* never done in 16 bits */
} qxr_byte_chain;

static inline int32_t qxr_shift_of(const qxr_work *rescale) { return rescale->op ? rescale->op->parameter : 0; }

/* avx2_chain_find.c: whether the chain has one of these forms. */
int qxr_find_byte_chain(const qxr_chain *chain, qxr_byte_chain *found);

/* The chain for the tile's first channels, whole eights. `made`: the first operator's result if it has 16 bits; else
 * null, and it lies in its slot. */
void qxr_run_byte_chain(const qxr_byte_chain *found, const qxr_chain *chain, const qxr_tile *tile, uint32_t channels,
                        qxr_words made);

#endif
