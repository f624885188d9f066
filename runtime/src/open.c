/* qxr_open: the one pass over a file. */
#include "check.h"
#include "crc.h"

#include <string.h>

static const uint8_t magic[8] = {0x89, 'Q', 'P', 'K', 0x0D, 0x0A, 0x1A, 0x0A};

static int is_big_endian(void)
{
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 0;
}

static uint32_t checksum(const uint8_t *bytes, uint32_t size)
{
    static const uint8_t zero[4] = {0, 0, 0, 0};
    const uint32_t head = qxr_crc32(0, bytes, offsetof(qxr_header, crc));
    const size_t rest = offsetof(qxr_header, features);
    return qxr_crc32(qxr_crc32(head, zero, 4), bytes + rest, size - rest);
}

/* That this is an undamaged file of a known version. */
static qxr_status check_identity(const uint8_t *bytes, size_t size)
{
    const qxr_header *h = (const qxr_header *)(const void *)bytes;
    if (size < sizeof *h)
        return QXR_ERROR_TRUNCATED;
    for (uint32_t i = 0; i < sizeof magic; i++)
        if (bytes[i] != magic[i])
            return QXR_ERROR_MAGIC;
    if (h->major != QXR_VERSION_MAJOR)
        return QXR_ERROR_VERSION;
    if (h->file_size > size)
        return QXR_ERROR_TRUNCATED;
    if (h->header_size != sizeof *h || h->file_size < size || h->file_size > INT32_MAX)
        return QXR_ERROR_HEADER;
    return checksum(bytes, h->file_size) == h->crc ? QXR_OK : QXR_ERROR_CRC;
}

static qxr_status check_header(const qxr_header *h)
{
    if (h->features & ~(uint32_t)QXR_FEATURES)
        return QXR_ERROR_FEATURE;
    if (h->tensor_count > QXR_MAX_TENSORS || h->input_count == 0 || h->output_count == 0 || h->op_count == 0)
        return QXR_ERROR_HEADER;
    if (h->op_count >= h->tensor_count || h->input_count != h->tensor_count - h->op_count)
        return QXR_ERROR_HEADER;
    return h->arena_size % QXR_ALIGN == 0 && h->arena_size <= INT32_MAX ? QXR_OK : QXR_ERROR_HEADER;
}

/* Each section begins where the one before ends. With the counts checked the sums stay below 2^20. */
static qxr_status check_sections(const qxr_model *model)
{
    const qxr_header *h = qxr_get_header(model);
    const uint32_t ops = (uint32_t)sizeof *h + h->tensor_count * (uint32_t)sizeof(qxr_tensor);
    const uint32_t outputs = ops + h->op_count * (uint32_t)sizeof(qxr_op);
    const uint32_t end = outputs + 2u * h->output_count;
    const uint32_t constants = (end + QXR_ALIGN - 1u) / QXR_ALIGN * QXR_ALIGN;
    if (h->tensors_offset != sizeof *h || h->ops_offset != ops || h->outputs_offset != outputs)
        return QXR_ERROR_LAYOUT;
    if (h->constants_offset != constants || constants > h->file_size)
        return QXR_ERROR_LAYOUT;
    for (uint32_t i = end; i < constants; i++)
        if (model->bytes[i] != 0)
            return QXR_ERROR_PADDING;
    if (h->metadata_offset % QXR_ALIGN != 0 || h->metadata_offset < constants || h->metadata_offset >= h->file_size)
        return QXR_ERROR_METADATA;
    return QXR_OK;
}

static qxr_status check_operator(qxr_check *c, uint32_t index)
{
    const qxr_op *op = qxr_get_op(c->model, index);
    const uint32_t inputs = c->header->input_count;
    qxr_node node = {op, {NULL, NULL}, qxr_get_tensor(c->model, inputs + index), NULL, index};
    QXR_TRY(qxr_check_record(op));
    for (uint32_t i = 0; op->opcode != QXR_CONCAT && i < (op->opcode == QXR_ADD ? 2u : 1u); i++) {
        if (op->input[i] >= inputs + index)
            return QXR_ERROR_INPUT;
        node.in[i] = qxr_get_tensor(c->model, op->input[i]);
    }
    QXR_TRY(qxr_place_constants(c, &node));
    node.constants = c->model->bytes + op->constant_offset;
    QXR_TRY(qxr_check_reads(c, &node));
    QXR_TRY(qxr_check_shape(c, &node));
    QXR_TRY(qxr_check_constants(c, &node));
    return qxr_check_ranges(c, &node);
}

/* A JSON object, or the header of zlib data (RFC 1950, section 2.2). */
static qxr_status check_metadata(const qxr_check *c)
{
    const uint32_t size = c->header->file_size - c->header->metadata_offset;
    const uint8_t *bytes = c->model->bytes + c->header->metadata_offset;
    if (c->cursor != c->header->metadata_offset || size < 2)
        return QXR_ERROR_METADATA;
    if (bytes[0] == '{')
        return bytes[size - 1u] == '}' ? QXR_OK : QXR_ERROR_METADATA;
    if (bytes[0] != 0x78 || (bytes[0] * 256u + bytes[1]) % 31u != 0 || (bytes[1] & 0x20u) != 0)
        return QXR_ERROR_METADATA;
    return size >= 8 ? QXR_OK : QXR_ERROR_METADATA;
}

static qxr_status check_contents(qxr_check *c)
{
    for (c->at = 0; c->at < c->header->tensor_count; c->at++)
        QXR_TRY(qxr_check_tensor(c));
    for (c->at = c->header->input_count; c->at < c->header->tensor_count; c->at++)
        QXR_TRY(check_operator(c, c->at - c->header->input_count));
    c->at = QXR_NONE32;
    QXR_TRY(check_metadata(c));
    QXR_TRY(qxr_check_outputs(c));
    QXR_TRY(qxr_check_arena(c));
    c->at = QXR_NONE32;
    return c->features == c->header->features ? QXR_OK : QXR_ERROR_FEATURE;
}

static qxr_status check_file(qxr_check *c, const qxr_model *model)
{
    QXR_TRY(check_header(c->header));
    QXR_TRY(check_sections(model));
    c->cursor = c->header->constants_offset;
    return check_contents(c);
}

qxr_status qxr_open(const void *bytes, size_t size, qxr_model *model)
{
    qxr_check c = {0};
    qxr_status status;
    if (model == NULL)
        return QXR_ERROR_ARGUMENT;
    memset(model, 0, sizeof *model);
    model->failed_at = QXR_NONE32;
    if (bytes == NULL)
        return QXR_ERROR_ARGUMENT;
    if (is_big_endian())
        return QXR_ERROR_BIG_ENDIAN;
    if ((uintptr_t)bytes % 8u != 0)
        return QXR_ERROR_ALIGNMENT;
    QXR_TRY(check_identity(bytes, size));
    model->bytes = bytes;
    model->size = (uint32_t)size;
    c.model = model;
    c.header = qxr_get_header(model);
    c.at = QXR_NONE32;
    status = check_file(&c, model);
    if (status != QXR_OK) { /* a refused model answers nothing */
        model->bytes = NULL;
        model->size = 0;
        model->failed_at = c.at;
    }
    return status;
}
