/* Repairs: what a writer would have got right, so that one change in the middle of a network still gives a network. */
#include <string.h>

#include "pieces.h"
#include "weights.h"

static qxr_tensor *result_of(pieces *p, uint32_t op) { return &p->tensors[p->input_count + op]; }

static uint32_t inputs_of(const pieces *p, uint32_t op, const uint16_t **inputs)
{
    const qxr_op *o = &p->ops[op];
    const int concat = o->opcode == QXR_CONCAT;
    *inputs = concat ? (const uint16_t *)(const void *)(p->pool + p->constants[op].offset) : o->input;
    if (concat)
        return p->constants[op].size / 2u < o->count ? p->constants[op].size / 2u : o->count;
    return o->opcode == QXR_ADD ? 2u : 1u;
}

static const qxr_tensor *input_of(const pieces *p, uint32_t op)
{
    const uint16_t *inputs;
    const uint32_t count = inputs_of(p, op, &inputs);
    return &p->tensors[count > 0 && inputs[0] < p->input_count + op ? inputs[0] : 0];
}

uint32_t constants_wanted(const pieces *p, uint32_t op)
{
    const qxr_op *o = &p->ops[op];
    const qxr_tensor *in = input_of(p, op), *out = &p->tensors[p->input_count + op];
    const uint64_t rows = o->flags & QXR_PER_CHANNEL ? in->extent[0] : 1u, n = o->count;
    uint64_t size = 0, row;
    if (o->opcode == QXR_CONV2D) {
        row = (uint64_t)o->window[0] * o->window[1] * (in->extent[0] / (o->groups ? o->groups : 1u));
        row = o->flags & QXR_CONV_BASE3 ? (row + 4u) / 5u : (row * o->parameter + 7u) / 8u;
        size = row > POOL || out->extent[0] > POOL ? POOL + 1u : 4u * n + out->extent[0] * row;
    } else if (o->opcode == QXR_BORDER_BIAS) {
        const uint64_t classes = (uint64_t)(uint8_t)o->first * (uint8_t)o->second;
        size = 4u * classes * in->extent[0] + in->extent[1] + in->extent[2];
    } else if (o->opcode == QXR_THRESHOLD) {
        size = 4u * n * rows + (o->flags & QXR_LEVEL_TABLE ? 4u * (n + 1u) : 0u);
        size += o->flags & QXR_SIGNS ? (rows + 7u) / 8u : 0u;
    } else if (o->opcode == QXR_RESCALE) {
        size = 12u * rows;
    } else if (o->opcode == QXR_SUM_POOL && (o->flags & QXR_FACTORS)) {
        size = 4u * ((uint64_t)out->extent[1] + out->extent[2]);
    } else if (o->opcode == QXR_PAD || o->opcode == QXR_SLICE) {
        size = 24u;
    } else if (o->opcode == QXR_CONCAT) {
        size = 2u * n;
    }
    return size > POOL ? 0u : (uint32_t)size;
}

/* Keeps what there is of the constants and repeats it. */
static int resize_constants(pieces *p, uint32_t op)
{
    const uint32_t size = constants_wanted(p, op);
    const blob old = p->constants[op];
    blob new = pieces_new(p, size);
    if (new.size != size)
        return 0;
    for (uint32_t i = 0; i < size && old.size > 0; i++)
        p->pool[new.offset + i] = p->pool[old.offset + i % old.size];
    p->constants[op] = new;
    return 1;
}

static uint32_t window_extent(const qxr_op *o, uint32_t axis, uint32_t size)
{
    const int64_t room = (int64_t)size + o->padding[2 * axis] + o->padding[2 * axis + 1] -
                         ((int64_t)o->dilation[axis] * (o->window[axis] - 1) + 1);
    return room < 0 || o->stride[axis] == 0 ? 0u : (uint32_t)(room / o->stride[axis] + 1);
}

static void set_extents(pieces *p, uint32_t op)
{
    const qxr_op *o = &p->ops[op];
    const qxr_tensor *in = input_of(p, op);
    qxr_tensor *out = result_of(p, op);
    const uint32_t *numbers = (const uint32_t *)(const void *)(p->pool + p->constants[op].offset);
    const uint32_t channels = out->extent[0];
    const uint16_t *inputs;
    if (o->opcode == QXR_RESHAPE) {
        out->extent[0] = in->extent[0] * in->extent[1] * in->extent[2];
        out->extent[1] = out->extent[2] = 1;
        out->rank_flags = (uint8_t)((out->rank_flags & ~3u) | 1u);
        return;
    }
    out->rank_flags = (uint8_t)((out->rank_flags & ~3u) | qxr_rank(in));
    memcpy(out->extent, in->extent, sizeof out->extent);
    for (uint32_t axis = 0; axis < 3; axis++) {
        if (axis > 0 && (o->opcode == QXR_CONV2D || o->opcode == QXR_MAX_POOL || o->opcode == QXR_SUM_POOL))
            out->extent[axis] = window_extent(o, axis - 1, in->extent[axis]);
        if (o->opcode == QXR_PAD && p->constants[op].size == 24)
            out->extent[axis] += numbers[axis] + numbers[3 + axis];
        if (o->opcode == QXR_SLICE && p->constants[op].size == 24 && numbers[3 + axis] > 0 &&
            numbers[axis] < in->extent[axis])
            out->extent[axis] = (in->extent[axis] - 1u - numbers[axis]) / numbers[3 + axis] + 1u;
        if (o->opcode == QXR_TRANSPOSE)
            out->extent[axis] = in->extent[(o->parameter >> 2 * axis & 3u) % 3u];
    }
    if (o->opcode == QXR_CONV2D)
        out->extent[0] = channels;
    for (uint32_t i = 1; o->opcode == QXR_CONCAT && i < inputs_of(p, op, &inputs); i++)
        out->extent[o->first % 3] += p->tensors[inputs[i] % p->tensor_count].extent[o->first % 3];
}

static void set_last_uses(pieces *p)
{
    for (uint32_t t = 0; t < p->tensor_count; t++)
        p->tensors[t].last_use = (uint16_t)(t < p->input_count ? 0u : t - p->input_count);
    for (uint32_t k = 0; k < p->op_count; k++) {
        const uint16_t *inputs;
        const uint32_t count = inputs_of(p, k, &inputs);
        for (uint32_t i = 0; i < count; i++)
            if (inputs[i] < p->tensor_count)
                p->tensors[inputs[i]].last_use = (uint16_t)k;
    }
    for (uint32_t i = 0; i < p->output_count; i++)
        if (p->outputs[i] < p->tensor_count)
            p->tensors[p->outputs[i]].last_use = (uint16_t)p->op_count;
}

/* Every stored tensor gets a place of its own. */
static void set_arena(pieces *p)
{
    uint64_t end = 0;
    for (uint32_t t = 0; t < p->tensor_count; t++) {
        qxr_tensor *tensor = &p->tensors[t];
        const uint64_t pixels = (uint64_t)(tensor->extent[1] & 0xFFFF) * (tensor->extent[2] & 0xFFFF);
        const uint64_t elements = (tensor->extent[0] & 0xFFFF) * pixels;
        tensor->arena_offset = qxr_storage(tensor) == QXR_VIRTUAL ? QXR_NONE32 : (uint32_t)end;
        end += (elements * qxr_element_bytes(tensor) + 15u) / 16u * 16u;
    }
    p->header.arena_size = (uint32_t)(end < INT32_MAX ? end : 0);
}

/* Storage that holds the claimed range, where the tensor has storage. */
static void set_storage(qxr_tensor *t)
{
    uint32_t storage = QXR_I32;
    if (t->lo >= INT16_MIN && t->hi <= INT16_MAX)
        storage = QXR_I16;
    if ((int64_t)t->hi - qxr_base(t) <= 255)
        storage = QXR_U8;
    if (qxr_storage(t) != QXR_VIRTUAL)
        t->storage_slot = (uint8_t)((t->storage_slot & ~15u) | storage);
}

static void widen(pieces *p, uint32_t at)
{
    qxr_tensor *t = &p->tensors[at];
    const int64_t lo = 4 * (int64_t)t->lo - 1, hi = 4 * (int64_t)t->hi + 1;
    t->lo = lo > 0 ? 0 : lo < INT32_MIN ? INT32_MIN : (int32_t)lo;
    t->hi = hi < 0 ? 0 : hi > INT32_MAX ? INT32_MAX : (int32_t)hi;
    t->rank_flags &= 3u;
    p->ranges[at].size = 0;
    set_storage(t);
    set_arena(p);
}

static void set_features(pieces *p)
{
    p->header.features = 0;
    for (uint32_t k = 0; k < p->op_count; k++) {
        const qxr_op *o = &p->ops[k];
        if (o->opcode == QXR_CONV2D && (o->flags & QXR_CONV_BASE3))
            p->header.features |= QXR_FEATURE_BASE3;
        if (o->opcode == QXR_CONV2D && o->count == 0 && o->parameter > 8)
            p->header.features |= QXR_FEATURE_WIDE;
        if (o->opcode == QXR_THRESHOLD && (o->flags & QXR_LEVEL_TABLE))
            p->header.features |= QXR_FEATURE_LEVEL_TABLE;
    }
}

/* Every operator alone, every tensor in the arena. */
static void ungroup(pieces *p)
{
    for (uint32_t k = 0; k < p->op_count; k++) {
        p->ops[k].flags &= (uint8_t)~QXR_JOINS;
        if (qxr_storage(result_of(p, k)) == QXR_VIRTUAL)
            result_of(p, k)->storage_slot |= QXR_I32;
        set_storage(result_of(p, k));
    }
    set_arena(p);
}

int pieces_repair(pieces *p, qxr_status status, uint32_t at)
{
    const int is_result = at < p->tensor_count && at >= p->input_count;
    switch (status) {
    case QXR_ERROR_FEATURE:
        set_features(p);
        return 1;
    case QXR_ERROR_LIFETIME:
        set_last_uses(p);
        return 1;
    case QXR_ERROR_ARENA:
        set_arena(p);
        return 1;
    case QXR_ERROR_GROUP:
        ungroup(p);
        return 1;
    case QXR_ERROR_RANGE:
        widen(p, at);
        return 1;
    case QXR_ERROR_TENSOR:
        if (is_result)
            set_storage(&p->tensors[at]);
        return is_result;
    case QXR_ERROR_LAYOUT:
        return is_result && resize_constants(p, at - p->input_count);
    case QXR_ERROR_SHAPE:
        if (is_result) {
            set_extents(p, at - p->input_count);
            set_arena(p);
        }
        return is_result;
    default:
        return 0;
    }
}
