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

/* Halves a number, but keeps it a multiple of what the inner loops take at once. */
static uint32_t halve(uint32_t n, uint32_t unit) { return (uint32_t)qxr_round_up(n / 2u, unit); }

enum {
    PIXEL_UNIT = 4,      /* pixels and channels that the inner loops take at once */
    CHANNEL_UNIT = 16,
    TILES_PER_THREAD = 4 /* so that threads that are slower by a tile differ little */
};

void qxr_tile_shape(const qxr_isa *isa, const qxr_tensor *tensor, uint32_t threads, uint32_t *pixels,
                    uint32_t *channels)
{
    const uint32_t all_channels = tensor->extent[0], all_pixels = qxr_pixels(tensor);
    uint32_t m = qxr_min(all_channels, isa->tile_channels), n = qxr_min(all_pixels, isa->tile_elements / m);
    m = qxr_min(all_channels, isa->tile_elements / n);
    if (n < all_pixels && n > PIXEL_UNIT)
        n -= n % PIXEL_UNIT;
    if (m < all_channels && m > CHANNEL_UNIT)
        m -= m % CHANNEL_UNIT;
    while (threads > 1u) {
        const uint64_t tiles = (uint64_t)((all_pixels - 1u) / n + 1u) * ((all_channels - 1u) / m + 1u);
        if (tiles >= (uint64_t)threads * TILES_PER_THREAD)
            break;
        if (n >= 2u * PIXEL_UNIT)
            n = halve(n, PIXEL_UNIT);
        else if (m >= 2u * CHANNEL_UNIT)
            m = halve(m, CHANNEL_UNIT);
        else
            break;
    }
    *pixels = n;
    *channels = m;
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

size_t qxr_arena_size(const qxr_model *model, uint32_t threads)
{
    size_t file, bytes, count = threads ? threads : 1u;
    if (!model || !model->bytes)
        return 0;
    file = qxr_round_up(qxr_get_header(model)->arena_size, 64u);
    bytes = qxr_plan_scratch(model).bytes;
    /* A size no memory can have stands for one that does not fit the type. */
    return count > (SIZE_MAX - file) / bytes ? SIZE_MAX : file + count * bytes;
}
