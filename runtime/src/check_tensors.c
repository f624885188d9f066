#include "check.h"

qxr_claim qxr_claim_of(const qxr_model *model, const qxr_tensor *tensor)
{
    const uint8_t *ranges = model->bytes + tensor->range_offset;
    qxr_claim claim = {NULL, NULL, NULL, NULL, tensor->lo, tensor->hi, 0};
    if (tensor->rank_flags & QXR_TENSOR_EXACT) {
        claim.exact_lo = (const int32_t *)(const void *)ranges;
        claim.exact_hi = claim.exact_lo + tensor->extent[0];
    } else if (tensor->rank_flags & QXR_TENSOR_STEPS) {
        claim.low = ranges;
        claim.high = ranges + tensor->extent[0];
        claim.step = (claim.hi - claim.lo + 254) / 255;
    }
    return claim;
}

static qxr_status check_extents(const qxr_tensor *t)
{
    uint64_t elements = 1;
    if (qxr_rank(t) == 0)
        return QXR_ERROR_TENSOR;
    for (uint32_t axis = 0; axis < 3; axis++) {
        if (t->extent[axis] == 0 || (axis >= qxr_rank(t) && t->extent[axis] != 1))
            return QXR_ERROR_TENSOR;
        elements *= t->extent[axis];
        if (elements > QXR_MAX_ELEMENTS)
            return QXR_ERROR_TENSOR;
    }
    return QXR_OK;
}

/* Whether the storage holds every value of the claimed range. */
static int storage_fits(const qxr_tensor *t)
{
    switch (qxr_storage(t)) {
    case QXR_U8:
        return (int64_t)t->hi - qxr_base(t) <= 255;
    case QXR_I16:
        return t->lo >= INT16_MIN && t->hi <= INT16_MAX;
    default:
        return qxr_storage(t) <= QXR_I32;
    }
}

/* Nothing narrower than a byte is known of what a caller hands over. */
static int is_valid_input(const qxr_tensor *t)
{
    const int ranges = (t->rank_flags & (QXR_TENSOR_EXACT | QXR_TENSOR_STEPS)) != 0;
    return qxr_storage(t) == QXR_U8 && t->lo == 0 && t->hi == 255 && qxr_slot(t) == 0 && !ranges;
}

static qxr_status check_place(const qxr_check *c, const qxr_tensor *t)
{
    const uint64_t bytes = qxr_elements64(t) * qxr_element_bytes(t);
    if (qxr_storage(t) == QXR_VIRTUAL)
        return t->arena_offset == QXR_NONE32 ? QXR_OK : QXR_ERROR_ARENA;
    if (t->arena_offset % QXR_ALIGN != 0 || t->arena_offset > c->header->arena_size)
        return QXR_ERROR_ARENA;
    return bytes <= c->header->arena_size - t->arena_offset ? QXR_OK : QXR_ERROR_ARENA;
}

/* The ranges of the channels are ranges and lie within that of the tensor. */
static qxr_status check_channel_ranges(const qxr_model *model, const qxr_tensor *t)
{
    const qxr_claim claim = qxr_claim_of(model, t);
    for (uint32_t i = 0; i < t->extent[0]; i++) {
        const qxr_range range = qxr_claimed(&claim, i);
        if (range.lo > range.hi || range.lo < t->lo || range.hi > t->hi)
            return QXR_ERROR_TENSOR;
        if (claim.low != NULL && claim.low[i] > claim.high[i])
            return QXR_ERROR_TENSOR;
    }
    return QXR_OK;
}

qxr_status qxr_check_tensor(qxr_check *c)
{
    const qxr_tensor *t = qxr_get_tensor(c->model, c->at);
    const uint32_t stated = t->rank_flags & (QXR_TENSOR_EXACT | QXR_TENSOR_STEPS);
    const uint32_t range_bytes = stated == 0 ? 0u : stated == QXR_TENSOR_EXACT ? 8u : 2u; /* per channel */
    if ((t->storage_slot & 0xC0u) != 0 || (t->rank_flags & 0x3Cu) != 0)
        return QXR_ERROR_PADDING;
    if (stated == (QXR_TENSOR_EXACT | QXR_TENSOR_STEPS))
        return QXR_ERROR_TENSOR;
    QXR_TRY(check_extents(t));
    if (t->lo > t->hi || !storage_fits(t))
        return QXR_ERROR_TENSOR;
    if (c->at < c->header->input_count && !is_valid_input(t))
        return QXR_ERROR_TENSOR;
    QXR_TRY(check_place(c, t));
    QXR_TRY(qxr_place(c, t->range_offset, (uint64_t)range_bytes * t->extent[0]));
    return stated != 0 ? check_channel_ranges(c->model, t) : QXR_OK;
}
