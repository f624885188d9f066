#include "plan.h"

/* An addition whose result would overwrite its slot operand before the other one is read from the arena, or that
 * reads both operands from the arena, loads one of them into a spare tile. */
static int needs_spare(const qxr_model *model, uint32_t index, uint32_t first)
{
    const uint32_t inputs = qxr_get_header(model)->input_count;
    const qxr_op *op = qxr_get_op(model, index);
    const uint32_t slot = qxr_slot(qxr_get_tensor(model, inputs + index));
    const int from_slot[2] = {qxr_from_slot(model, op, first, 0), qxr_from_slot(model, op, first, 1)};
    if (op->opcode != QXR_ADD || (from_slot[0] && from_slot[1]))
        return 0;
    if (!from_slot[0] && !from_slot[1])
        return 1;
    return qxr_slot(qxr_get_tensor(model, op->input[from_slot[0] ? 0 : 1])) == slot;
}

qxr_scratch qxr_plan_scratch(const qxr_model *model)
{
    const qxr_header *header = qxr_get_header(model);
    const qxr_isa *isa = qxr_model_isa(model);
    qxr_scratch s = {0};
    uint32_t first = 0;
    for (uint32_t k = 0; k < header->op_count; k++) {
        const qxr_op *op = qxr_get_op(model, k);
        const qxr_tensor *out = qxr_get_tensor(model, header->input_count + k);
        if (!(op->flags & QXR_JOINS))
            first = k;
        s.elements = qxr_max(s.elements, qxr_min(qxr_elements(out), isa->tile_elements));
        s.slots = qxr_max(s.slots, qxr_slot(out) + 1u);
        if (needs_spare(model, k, first))
            s.spares = 1;
        if (op->opcode == QXR_CONV2D) {
            qxr_conv conv;
            size_t bytes;
            qxr_describe_conv(model, k, &conv);
            bytes = qxr_choose_conv(isa, &conv)->scratch_size(&conv);
            if (bytes > s.conv_bytes)
                s.conv_bytes = bytes;
        }
    }
    s.elements = (uint32_t)qxr_round_up(s.elements, 16u); /* so that every slot is aligned to 64 bytes */
    s.conv_bytes = qxr_round_up(s.conv_bytes, 64u);
    s.bytes = (size_t)s.elements * 4u * (s.slots + s.spares) + s.conv_bytes;
    return s;
}

enum {
    PIXEL_UNIT = 4,                  /* pixels and channels that the inner loops take at once */
    CHANNEL_UNIT = 16,
    SHARE_CHANNELS = 128,            /* of a thread's part whose weights come from far */
    FAR_WEIGHTS = 400 << 10,         /* bytes of weights that leave no room for others in a core's cache */
    LEAST_PRODUCTS = 1 << 17,        /* multiplications that are worth waking a thread */
    PRODUCTS_OF_OTHERS = 16          /* an operator without weights, in multiplications of one element */
};

size_t qxr_weight_bytes(const qxr_conv_kernel *kernel, const qxr_conv *conv)
{
    return conv ? kernel->packed_size(conv) * qxr_max(kernel->unpacks, 1u) : 0u;
}

/* Weights that come from far are read once: the tile has all pixels and a part of the channels, where it can. */
void qxr_tile_shape(const qxr_isa *isa, const qxr_tensor *tensor, size_t weights, uint32_t *pixels, uint32_t *channels)
{
    const uint32_t all_channels = tensor->extent[0], all_pixels = qxr_pixels(tensor);
    const int far = weights > FAR_WEIGHTS && (uint64_t)all_pixels * isa->block_channels <= isa->tile_elements;
    uint32_t m = qxr_min(all_channels, far ? isa->block_channels : isa->tile_channels);
    uint32_t n = qxr_min(all_pixels, isa->tile_elements / m);
    m = qxr_min(all_channels, isa->tile_elements / n);
    if (n < all_pixels && n > tensor->extent[2])
        n -= n % tensor->extent[2];
    else if (n < all_pixels && n > PIXEL_UNIT)
        n -= n % PIXEL_UNIT;
    if (m < all_channels && m > isa->block_channels)
        m -= m % isa->block_channels;
    else if (m < all_channels && m > CHANNEL_UNIT)
        m -= m % CHANNEL_UNIT;
    *pixels = n;
    *channels = m;
}

qxr_shares qxr_share(const qxr_tensor *tensor, size_t weights, uint32_t products, uint32_t tile, uint32_t threads)
{
    const uint32_t channels = tensor->extent[0], pixels = qxr_pixels(tensor), width = tensor->extent[2];
    const uint64_t work = (uint64_t)qxr_elements(tensor) * (products ? products : PRODUCTS_OF_OTHERS);
    const int wide = channels / SHARE_CHANNELS >= threads;
    qxr_shares s = {threads, threads, PIXEL_UNIT, 0};
    if ((weights > FAR_WEIGHTS && wide) || pixels / PIXEL_UNIT < threads) {
        s.by_channel = 1;
        s.unit = wide ? SHARE_CHANNELS : CHANNEL_UNIT;
    } else {
        s.count *= ((pixels - 1u) / threads) / tile + 1u;
        if (pixels / width >= s.count)
            s.unit = width;
    }
    s.count = qxr_min(s.count, ((s.by_channel ? channels : pixels) - 1u) / s.unit + 1u);
    s.threads = qxr_min(s.threads, s.count);
    if (work < (uint64_t)LEAST_PRODUCTS * s.threads)
        s.threads = 1;
    return s;
}

size_t qxr_packed_bytes(const qxr_model *model, uint32_t op_index)
{
    qxr_conv conv;
    if (qxr_get_op(model, op_index)->opcode != QXR_CONV2D)
        return 0;
    qxr_describe_conv(model, op_index, &conv);
    return qxr_round_up(qxr_choose_conv(qxr_model_isa(model), &conv)->packed_size(&conv), 64u);
}

size_t qxr_prepack_size(const qxr_model *model)
{
    size_t bytes = 0;
    if (!model || !model->bytes)
        return 0;
    for (uint32_t k = 0; k < qxr_get_header(model)->op_count; k++)
        bytes += qxr_packed_bytes(model, k);
    return bytes;
}

qxr_status qxr_prepack(qxr_model *model, void *buffer, size_t size)
{
    const size_t needed = qxr_prepack_size(model);
    uint8_t *next = buffer;
    if (!model || !model->bytes || (!buffer && needed))
        return QXR_ERROR_ARGUMENT;
    if ((uintptr_t)buffer % 64u)
        return QXR_ERROR_ALIGNMENT;
    if (size < needed)
        return QXR_ERROR_PREPACK_SIZE;
    for (uint32_t k = 0; k < qxr_get_header(model)->op_count; k++) {
        const size_t bytes = qxr_packed_bytes(model, k);
        qxr_conv conv;
        if (!bytes)
            continue;
        qxr_describe_conv(model, k, &conv);
        qxr_choose_conv(qxr_model_isa(model), &conv)->pack(&conv, next);
        next += bytes;
    }
    model->prepacked = needed ? buffer : NULL;
    return QXR_OK;
}

size_t qxr_scratch_end(const qxr_model *model, const qxr_scratch *scratch, uint32_t threads)
{
    const size_t file = qxr_round_up(qxr_get_header(model)->arena_size, 64u), count = threads ? threads : 1u;
    /* A size no memory can have stands for one that does not fit the type. */
    return count > (SIZE_MAX - file) / scratch->bytes ? SIZE_MAX : file + count * scratch->bytes;
}

size_t qxr_arena_size(const qxr_model *model, uint32_t threads)
{
    qxr_scratch scratch;
    if (!model || !model->bytes)
        return 0;
    scratch = qxr_plan_scratch(model);
    return qxr_scratch_end(model, &scratch, threads);
}
