#include "pieces.h"

#include <string.h>

#include "crc.h"

static uint32_t rounded(uint32_t size) { return (size + QXR_ALIGN - 1u) / QXR_ALIGN * QXR_ALIGN; }

static int lies_inside(uint32_t offset, uint64_t bytes, size_t size)
{
    return offset <= size && bytes <= size - offset;
}

void seal(uint8_t *data, size_t size)
{
    uint32_t crc;
    memset(data + offsetof(qxr_header, crc), 0, 4);
    crc = qxr_crc32(0, data, size);
    memcpy(data + offsetof(qxr_header, crc), &crc, 4);
}

blob pieces_new(pieces *p, uint32_t size)
{
    blob b = {p->used, size};
    if (size > POOL - p->used)
        b.size = 0;
    memset(p->pool + b.offset, 0, b.size);
    p->used += rounded(b.size);
    return b;
}

static int copy_in(pieces *p, blob *b, const uint8_t *data, uint32_t offset, uint64_t bytes, size_t size)
{
    if (!lies_inside(offset, bytes, size) || bytes > POOL - p->used)
        return 0;
    *b = pieces_new(p, (uint32_t)bytes);
    memcpy(p->pool + b->offset, data + offset, (size_t)bytes);
    return 1;
}

static uint32_t range_bytes(const qxr_tensor *t)
{
    const uint64_t each = t->rank_flags & QXR_TENSOR_EXACT ? 8u : t->rank_flags & QXR_TENSOR_STEPS ? 2u : 0u;
    return each * t->extent[0] > POOL ? 0u : (uint32_t)(each * t->extent[0]);
}

static int parse_records(pieces *p, const uint8_t *data, size_t size)
{
    const qxr_header *h = &p->header;
    if (h->tensor_count > MAX_PIECES || h->op_count >= h->tensor_count || h->output_count > MAX_PIECES)
        return 0;
    p->tensor_count = h->tensor_count;
    p->op_count = h->op_count;
    p->input_count = h->tensor_count - h->op_count;
    p->output_count = h->output_count;
    if (!lies_inside(h->tensors_offset, sizeof(qxr_tensor) * h->tensor_count, size) ||
        !lies_inside(h->ops_offset, sizeof(qxr_op) * h->op_count, size) ||
        !lies_inside(h->outputs_offset, 2u * h->output_count, size))
        return 0;
    memcpy(p->tensors, data + h->tensors_offset, sizeof(qxr_tensor) * h->tensor_count);
    memcpy(p->ops, data + h->ops_offset, sizeof(qxr_op) * h->op_count);
    memcpy(p->outputs, data + h->outputs_offset, 2u * h->output_count);
    return 1;
}

int pieces_parse(pieces *p, const uint8_t *data, size_t size)
{
    if (size < sizeof(qxr_header))
        return 0;
    memset(p, 0, sizeof *p);
    memcpy(&p->header, data, sizeof p->header);
    if (!parse_records(p, data, size))
        return 0;
    for (uint32_t t = 0; t < p->tensor_count; t++)
        if (!copy_in(p, &p->ranges[t], data, p->tensors[t].range_offset, range_bytes(&p->tensors[t]), size))
            return 0;
    for (uint32_t k = 0; k < p->op_count; k++)
        if (!copy_in(p, &p->constants[k], data, p->ops[k].constant_offset, p->ops[k].constant_size, size))
            return 0;
    return p->header.metadata_offset <= size &&
           copy_in(p, &p->metadata, data, p->header.metadata_offset, size - p->header.metadata_offset, size);
}

/* Where the next section or constant goes. */
typedef struct writer {
    uint8_t *data;
    size_t room;
    uint32_t at;
} writer;

static uint32_t put(writer *w, const void *bytes, uint32_t size)
{
    const uint32_t at = w->at;
    if (size > w->room || rounded(size) > w->room - at)
        w->room = 0;
    if (w->room == 0)
        return 0;
    memcpy(w->data + at, bytes, size);
    memset(w->data + at + size, 0, rounded(size) - size);
    w->at += rounded(size);
    return size == 0 ? 0 : at;
}

size_t pieces_emit(const pieces *p, uint8_t *data, size_t room)
{
    qxr_header *h = (qxr_header *)(void *)data;
    writer w = {data, room < UINT32_MAX ? room : UINT32_MAX, 0};
    qxr_tensor *tensors;
    qxr_op *ops;
    put(&w, &p->header, sizeof p->header);
    put(&w, p->tensors, p->tensor_count * (uint32_t)sizeof(qxr_tensor));
    put(&w, p->ops, p->op_count * (uint32_t)sizeof(qxr_op));
    put(&w, p->outputs, 2u * p->output_count);
    if (w.room == 0)
        return 0;
    h->header_size = sizeof *h;
    h->tensor_count = p->tensor_count;
    h->op_count = p->op_count;
    h->input_count = (uint16_t)p->input_count;
    h->output_count = (uint16_t)p->output_count;
    h->tensors_offset = sizeof *h;
    h->ops_offset = h->tensors_offset + p->tensor_count * (uint32_t)sizeof(qxr_tensor);
    h->outputs_offset = h->ops_offset + p->op_count * (uint32_t)sizeof(qxr_op);
    h->constants_offset = w.at;
    tensors = (qxr_tensor *)(void *)(data + h->tensors_offset);
    ops = (qxr_op *)(void *)(data + h->ops_offset);
    for (uint32_t t = 0; t < p->tensor_count; t++)
        tensors[t].range_offset = put(&w, p->pool + p->ranges[t].offset, p->ranges[t].size);
    for (uint32_t k = 0; k < p->op_count; k++) {
        ops[k].constant_offset = put(&w, p->pool + p->constants[k].offset, p->constants[k].size);
        ops[k].constant_size = p->constants[k].size;
    }
    h->metadata_offset = w.at;
    put(&w, p->pool + p->metadata.offset, p->metadata.size);
    if (w.room == 0)
        return 0;
    h->file_size = h->metadata_offset + p->metadata.size;
    seal(data, h->file_size);
    return h->file_size;
}
