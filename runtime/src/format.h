/* Records of the packed format, docs/packed-format.md sections 2 to 4. The file is little-endian and so is the host (qxr_open refuses others), and
 * every record is naturally aligned in it, so the structs below lie directly over the bytes. */
#ifndef QXR_FORMAT_H
#define QXR_FORMAT_H

#include "qxr.h"

#define QXR_MAX_TENSORS 8191u
#define QXR_ALIGN 16u
#define QXR_NONE16 0xFFFFu
#define QXR_NONE32 0xFFFFFFFFu
#define QXR_SLOTS 4u
#define QXR_MAX_WEIGHT (1 << 30)
#define QXR_MAX_STEPS 65534u
#define QXR_MAX_ELEMENTS (1u << 29)
#define QXR_MAX_EFFORT (1u << 25) /* docs/packed-format.md, section 7 */

enum { QXR_FEATURE_BASE3 = 1, QXR_FEATURE_WIDE = 2, QXR_FEATURE_LEVEL_TABLE = 4, QXR_FEATURES = 7 };

typedef struct qxr_header {
    uint8_t magic[8];
    uint16_t major, minor;
    uint32_t header_size, file_size, crc, features;
    uint32_t tensor_count, op_count;
    uint16_t input_count, output_count;
    uint32_t tensors_offset, ops_offset, outputs_offset, constants_offset, metadata_offset;
    uint32_t arena_size;
} qxr_header;

enum { QXR_VIRTUAL = 0, QXR_U8 = 1, QXR_I16 = 2, QXR_I32 = 3 };
enum { QXR_TENSOR_EXACT = 0x40, QXR_TENSOR_STEPS = 0x80 }; /* how the ranges of the channels are stated */

typedef struct qxr_tensor {
    uint8_t storage_slot;  /* bits 0-3 storage, 4-5 slot */
    uint8_t rank_flags;    /* bits 0-1 rank, bit 7 ranges */
    uint16_t last_use;
    uint32_t extent[3];
    int32_t lo, hi;
    uint32_t arena_offset, range_offset;
} qxr_tensor;

enum {
    QXR_CONV2D = 1, QXR_BORDER_BIAS, QXR_THRESHOLD, QXR_RESCALE, QXR_ADD, QXR_CLIP, QXR_MAX_POOL, QXR_SUM_POOL, QXR_PAD,
    QXR_SLICE, QXR_CONCAT, QXR_RESHAPE, QXR_TRANSPOSE, QXR_L2_NORM, QXR_OPCODES
};

enum { QXR_JOINS = 1, QXR_CONV_BASE3 = 2, QXR_PER_CHANNEL = 2, QXR_SIGNS = 4, QXR_LEVEL_TABLE = 8, QXR_FACTORS = 2 };

typedef struct qxr_op {
    uint8_t opcode, version, flags, parameter;
    uint16_t input[2];
    uint32_t constant_offset, constant_size;
    uint16_t window[2], stride[2], dilation[2], padding[4]; /* padding: top, bottom, left, right */
    uint16_t groups, count;
    int32_t first, second;
} qxr_op;

_Static_assert(sizeof(qxr_header) == 64, "header record");
_Static_assert(sizeof(qxr_tensor) == 32, "tensor record");
_Static_assert(sizeof(qxr_op) == 48, "operator record");

static inline const qxr_header *qxr_get_header(const qxr_model *m) { return (const qxr_header *)(const void *)m->bytes; }

static inline const qxr_tensor *qxr_get_tensor(const qxr_model *m, uint32_t index)
{
    return (const qxr_tensor *)(const void *)(m->bytes + qxr_get_header(m)->tensors_offset) + index;
}

static inline const qxr_op *qxr_get_op(const qxr_model *m, uint32_t index)
{
    return (const qxr_op *)(const void *)(m->bytes + qxr_get_header(m)->ops_offset) + index;
}

static inline const uint16_t *qxr_get_outputs(const qxr_model *m)
{
    return (const uint16_t *)(const void *)(m->bytes + qxr_get_header(m)->outputs_offset);
}

/* The tensors an operator reads, and how many. */
static inline uint32_t qxr_inputs_of(const qxr_model *m, const qxr_op *op, const uint16_t **inputs)
{
    const int concat = op->opcode == QXR_CONCAT;
    *inputs = concat ? (const uint16_t *)(const void *)(m->bytes + op->constant_offset) : op->input;
    return concat ? op->count : op->opcode == QXR_ADD ? 2u : 1u;
}

/* Floor shift; what >> does with negative numbers is left open by C. Compilers make one instruction of it. */
static inline int64_t qxr_shift_right(int64_t value, uint32_t shift) { return value < 0 ? ~(~value >> shift) : value >> shift; }

static inline uint32_t qxr_storage(const qxr_tensor *t) { return t->storage_slot & 15u; }
static inline uint32_t qxr_slot(const qxr_tensor *t) { return t->storage_slot >> 4; }
static inline uint32_t qxr_rank(const qxr_tensor *t) { return t->rank_flags & 3u; }
static inline int32_t qxr_base(const qxr_tensor *t) { return t->lo < 0 ? t->lo : 0; }
static inline uint32_t qxr_element_bytes(const qxr_tensor *t)
{
    const uint32_t storage = qxr_storage(t);
    return storage == QXR_VIRTUAL ? 0u : 1u << (storage - 1u);
}

#endif
