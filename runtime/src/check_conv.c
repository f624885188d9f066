/* Weights, accumulators and results of a convolution: the only check whose work is proportional to the weights. */
#include "check.h"
#include "weights.h"

enum {
    CHUNK = 320, /* weights at a time: whole bytes of every coding */
    COUNTED = 4  /* largest codebook whose codes are counted rather than looked up */
};

/* What one output channel sums. `each` is the hull of zero and the result, which no partial sum in any order leaves. */
typedef struct sums {
    qxr_range result, each;
    int64_t positive, negative; /* weights, where all input channels have one range */
    uint32_t channel, channels, first_channel; /* input channel of the next weight, within its group */
    int padded;
} sums;

static qxr_status check_codebook(const qxr_weights *w)
{
    for (uint32_t i = 0; i < w->entries; i++) {
        if (w->codebook[i] < -QXR_MAX_WEIGHT || w->codebook[i] > QXR_MAX_WEIGHT)
            return QXR_ERROR_WEIGHTS;
        if (i > 0 && w->codebook[i] <= w->codebook[i - 1])
            return QXR_ERROR_WEIGHTS;
    }
    return QXR_OK;
}

/* Turns codes into weights. Loops without an exit inside become vector instructions. */
static qxr_status check_codes(const qxr_weights *w, uint32_t count, int32_t *codes)
{
    int wrong = 0;
    if (w->codebook == NULL) {
        for (uint32_t i = 0; i < count; i++)
            wrong |= (codes[i] < -QXR_MAX_WEIGHT) | (codes[i] > QXR_MAX_WEIGHT);
        return wrong ? QXR_ERROR_WEIGHTS : QXR_OK;
    }
    for (uint32_t i = 0; i < count; i++) /* codes have at most 8 bits */
        wrong |= codes[i] >= (int32_t)w->entries;
    if (wrong)
        return QXR_ERROR_WEIGHTS;
    for (uint32_t i = 0; i < count; i++)
        codes[i] = w->codebook[codes[i]];
    return QXR_OK;
}

/* `each` only grows, and a product is at most 2^61, so one look behind every product keeps all four sums in 64 bits. */
static qxr_status add_products(sums *s, const qxr_claim *in, const int32_t *weights, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const qxr_range x = qxr_claimed(in, s->first_channel + s->channel);
        const int64_t a = weights[i] * x.lo, b = weights[i] * x.hi;
        const int64_t lo = a < b ? a : b, hi = a < b ? b : a;
        s->each.lo += lo < 0 ? lo : 0;
        s->each.hi += hi > 0 ? hi : 0;
        if (s->each.lo < INT32_MIN || s->each.hi > INT32_MAX)
            return QXR_ERROR_ACCUMULATOR;
        s->result.lo += lo;
        s->result.hi += hi;
        s->channel = s->channel + 1u < s->channels ? s->channel + 1u : 0u;
    }
    return QXR_OK;
}

static void add_weights(sums *s, const int32_t *weights, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) { /* fewer than 2^31 weights of at most 2^30 */
        s->positive += weights[i] > 0 ? weights[i] : 0;
        s->negative += weights[i] < 0 ? weights[i] : 0;
    }
}

/* The same for codes of a small codebook, which are counted. */
static qxr_status add_codes(sums *s, const qxr_weights *w, const int32_t *codes, uint32_t count)
{
    uint32_t known = 0;
    for (uint32_t code = 0; code < w->entries; code++) {
        uint32_t found = 0;
        for (uint32_t i = 0; i < count; i++)
            found += codes[i] == (int32_t)code;
        const int64_t sum = (int64_t)found * w->codebook[code];
        s->positive += sum > 0 ? sum : 0;
        s->negative += sum < 0 ? sum : 0;
        known += found;
    }
    return known == count ? QXR_OK : QXR_ERROR_WEIGHTS;
}

/* The products of all weights with the one range. Weights of more than 2^31 together leave 32 bits with any value but
 * zero. */
static qxr_status multiply_sums(sums *s, const qxr_claim *in)
{
    const int64_t limit = (int64_t)1 << 31, lo = in->lo < 0 ? in->lo : 0, hi = in->hi > 0 ? in->hi : 0;
    if (lo == 0 && hi == 0)
        return QXR_OK;
    if (s->positive > limit || s->negative < -limit)
        return QXR_ERROR_ACCUMULATOR;
    s->each.lo = s->positive * lo + s->negative * hi;
    s->each.hi = s->positive * hi + s->negative * lo;
    s->result.lo = s->positive * in->lo + s->negative * in->hi;
    s->result.hi = s->positive * in->hi + s->negative * in->lo;
    return s->each.lo < INT32_MIN || s->each.hi > INT32_MAX ? QXR_ERROR_ACCUMULATOR : QXR_OK;
}

/* Digits above 2 and what the last byte holds behind the last weight. */
static qxr_status check_row_bytes(const qxr_weights *w, const uint8_t *row)
{
    const uint8_t last = row[w->row_bytes - 1u];
    uint32_t used = (uint32_t)(w->length * w->bits % 8u), power = 1;
    if (!w->base3)
        return used == 0 || last >> used == 0 ? QXR_OK : QXR_ERROR_PADDING;
    uint8_t largest = 0;
    for (uint64_t i = 0; i < w->row_bytes; i++)
        largest = row[i] > largest ? row[i] : largest;
    if (largest > 242)
        return QXR_ERROR_WEIGHTS;
    for (used = (uint32_t)(w->length % 5u); used > 0; used--)
        power *= 3u;
    return power == 1 || last < power ? QXR_OK : QXR_ERROR_PADDING;
}

static qxr_status check_row(const qxr_weights *w, uint32_t row, const qxr_claim *in, sums *s)
{
    int32_t weights[CHUNK];
    const int one_range = in->low == NULL && in->exact_lo == NULL;
    const int counted = one_range && w->entries > 0 && w->entries <= COUNTED;
    QXR_TRY(check_row_bytes(w, w->rows + (size_t)(row * w->row_bytes)));
    for (uint64_t k = 0; k < w->length; k += CHUNK) {
        const uint32_t count = w->length - k < CHUNK ? (uint32_t)(w->length - k) : CHUNK;
        qxr_weight_codes(w, row, k, count, weights);
        if (counted) {
            QXR_TRY(add_codes(s, w, weights, count));
            continue;
        }
        QXR_TRY(check_codes(w, count, weights));
        if (one_range)
            add_weights(s, weights, count);
        else
            QXR_TRY(add_products(s, in, weights, count));
    }
    if (one_range)
        QXR_TRY(multiply_sums(s, in));
    if (s->padded)
        s->result = s->each;
    return QXR_OK;
}

qxr_status qxr_check_conv(qxr_check *c, const qxr_node *node)
{
    const qxr_op *op = node->op;
    const qxr_weights w = qxr_weights_of(c->model, node->index);
    const qxr_claim in = qxr_claim_of(c->model, node->in[0]), out = qxr_claim_of(c->model, node->out);
    const uint32_t channels = node->in[0]->extent[0] / op->groups, rows = w.row_count / op->groups;
    const int padded = (op->padding[0] | op->padding[1] | op->padding[2] | op->padding[3]) != 0;
    c->features |= w.base3 ? QXR_FEATURE_BASE3 : 0u;
    c->features |= w.entries == 0 && w.bits > 8 ? QXR_FEATURE_WIDE : 0u;
    QXR_TRY(check_codebook(&w));
    for (uint32_t row = 0; row < w.row_count; row++) {
        sums s = {{0, 0}, {0, 0}, 0, 0, 0, channels, row / rows * channels, padded};
        QXR_TRY(check_row(&w, row, &in, &s));
        if (!qxr_within(&out, row, s.result))
            return QXR_ERROR_RANGE;
    }
    return QXR_OK;
}
