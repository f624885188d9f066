/* The loader: what qxr_open proves, one family of rules a file. Each function may rely on those called before it. */
#ifndef QXR_CHECK_H
#define QXR_CHECK_H

#include "format.h"

/* State of the one pass over a file. */
typedef struct qxr_check {
    const qxr_model *model;
    const qxr_header *header;
    uint32_t at;          /* tensor looked at; an operator is named by its result */
    uint32_t cursor;      /* where the next constant must lie; never behind the metadata's offset */
    uint32_t features;    /* those that occurred */
    uint32_t effort;      /* channels visited */
    uint32_t group_first; /* first operator of the current group */
    uint32_t slot_owner[QXR_SLOTS]; /* tensor whose values a slot holds, within the current group */
} qxr_check;

/* An operator with its records. */
typedef struct qxr_node {
    const qxr_op *op;
    const qxr_tensor *in[2]; /* null where there is none; concat has none here */
    const qxr_tensor *out;
    const uint8_t *constants;
    uint32_t index;
} qxr_node;

/* Range claimed for a tensor, lo .. hi, and for its channels: exact, or in steps from lo on, or (all pointers
 * null) the same. */
typedef struct qxr_claim {
    const int32_t *exact_lo, *exact_hi;
    const uint8_t *low, *high;
    int64_t lo, hi, step;
} qxr_claim;

typedef struct qxr_range {
    int64_t lo, hi;
} qxr_range;

/* The constants of a threshold operator. */
typedef struct qxr_thresholds {
    const int32_t *values; /* [count][rows] */
    const int32_t *levels; /* [count + 1], or null: first + code * step */
    const uint8_t *signs;  /* or null */
    size_t rows;           /* channels, or 1 where all share them */
    uint32_t count;
    int32_t first, step;
} qxr_thresholds;

#define QXR_TRY(expression)                     \
    do {                                        \
        const qxr_status status_ = (expression); \
        if (status_ != QXR_OK)                  \
            return status_;                     \
    } while (0)

/* check_tensors.c: the record, and the ranges behind it. */
qxr_status qxr_check_tensor(qxr_check *c);
qxr_claim qxr_claim_of(const qxr_model *model, const qxr_tensor *tensor);

/* check_operators.c: the record itself: opcode, flags, unused fields, parameters. */
qxr_status qxr_check_record(const qxr_op *op);
int qxr_is_elementwise(const qxr_op *op);

/* check_memory.c: what an operator reads, its group and slots; and afterwards the outputs, last uses and the arena. */
qxr_status qxr_spend(qxr_check *c, uint64_t channels);
qxr_status qxr_check_reads(qxr_check *c, const qxr_node *node);
qxr_status qxr_check_outputs(const qxr_check *c);
qxr_status qxr_check_arena(qxr_check *c);

/* check_shapes.c: the extents of the result; the fewest and most taps of a pool's windows inside the input, times
 * factors (or null). */
qxr_range qxr_taps_inside(const qxr_node *node, uint32_t axis, const int32_t *factors);
qxr_status qxr_check_shape(qxr_check *c, const qxr_node *node);

/* check_constants.c: their place, size and values. */
qxr_status qxr_place(qxr_check *c, uint32_t offset, uint64_t size);
qxr_status qxr_place_constants(qxr_check *c, const qxr_node *node);
qxr_thresholds qxr_thresholds_of(const qxr_node *node);
int qxr_levels_are_monotone(const qxr_thresholds *t);
qxr_status qxr_check_constants(qxr_check *c, const qxr_node *node);

/* check_conv.c and check_ranges.c: the claimed range of the result. */
qxr_status qxr_check_conv(qxr_check *c, const qxr_node *node);
qxr_status qxr_check_ranges(qxr_check *c, const qxr_node *node);
static inline qxr_range qxr_claimed(const qxr_claim *claim, size_t channel)
{
    qxr_range range = {claim->lo, claim->hi};
    if (claim->exact_lo != NULL) {
        range.lo = claim->exact_lo[channel];
        range.hi = claim->exact_hi[channel];
    } else if (claim->low != NULL) {
        range.lo += claim->step * claim->low[channel];
        const int64_t end = claim->lo + claim->step * claim->high[channel];
        range.hi = end < range.hi ? end : range.hi;
    }
    return range;
}

static inline int qxr_within(const qxr_claim *claim, uint32_t channel, qxr_range range)
{
    const qxr_range claimed = qxr_claimed(claim, channel);
    return range.lo >= claimed.lo && range.hi <= claimed.hi;
}

static inline uint64_t qxr_elements64(const qxr_tensor *t)
{
    return (uint64_t)t->extent[0] * t->extent[1] * t->extent[2];
}

#endif
