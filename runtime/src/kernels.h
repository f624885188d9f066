/* Kernels: what the executor asks of an instruction set.
 *
 * A tile is some pixels and some channels of one result, as int32 [pixels][channels]. Every kernel fills one tile. The
 * kernels of all instruction sets stand in the tables of isa.c; tests and benchmarks go through the same tables. */
#ifndef QXR_KERNELS_H
#define QXR_KERNELS_H

#include "format.h"
#include "weights.h"

/* Part of a tensor: channels last, pixel p = y W + x. */
typedef struct qxr_tile {
    uint32_t pixel, pixels, channel, channels;
} qxr_tile;

/* One operator, ready to compute tiles. */
typedef struct qxr_work {
    const qxr_model *model;
    const qxr_op *op;
    const qxr_tensor *in[2]; /* null where the operator has none */
    const qxr_tensor *out;
    const uint8_t *arena;    /* operators with a window, and those that move values, read their inputs here */
    const int32_t *x[2];     /* elementwise operators: the operands' tiles; either may be y itself */
} qxr_work;

typedef void qxr_tile_function(const qxr_work *work, const qxr_tile *tile, int32_t *y);

/* A convolution with everything derived from its records. */
typedef struct qxr_conv {
    const qxr_op *op;
    const qxr_tensor *in, *out;
    qxr_weights weights;
    uint32_t group_in, group_out; /* channels of one group */
    uint32_t row;                 /* K, weights of an output channel */
    int32_t base;                 /* added to a byte of a u8 input to give its value; 0 for other storages */
    uint32_t input_peak;          /* largest magnitude of an input as stored (u8: largest byte); padding included */
    uint32_t weight_peak;         /* largest magnitude of a weight that the coding allows */
} qxr_conv;

typedef struct qxr_conv_buffers {
    const uint8_t *input;  /* the stored input tensor; at least 64 bytes behind it may be read */
    const uint8_t *packed; /* what `pack` wrote, 64-byte aligned */
    uint8_t *scratch;      /* scratch_size bytes of this thread, 64-byte aligned */
} qxr_conv_buffers;

/* Where values of 16 bits lie; elements from one pixel to the next. */
typedef struct qxr_words {
    int16_t *at;
    size_t pitch;
} qxr_words;

/* One way to compute a convolution. */
typedef struct qxr_conv_kernel {
    const char *name;
    int (*suits)(const qxr_conv *conv);
    size_t (*packed_size)(const qxr_conv *conv);                          /* bytes, 0 where it reads the file's rows */
    void (*pack)(const qxr_conv *conv, uint8_t *packed);
    size_t (*scratch_size)(const qxr_conv *conv);                         /* bytes a thread */
    void (*tile)(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y);
    /* A tile whose values fit 16 bits, of whole sixteens of channels; null where the kernel cannot. */
    void (*words)(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y);
    uint32_t unpacks; /* bytes that each tile makes of a byte of the packed weights; 0: it reads them as they are */
} qxr_conv_kernel;

/* Elementwise operators of one group that follow each other, where nobody looks at what is between them. */
typedef struct qxr_chain {
    const qxr_model *model;
    uint8_t *arena;
    int32_t *slots;         /* slot i begins at i elements; results of the group's operators before the chain */
    size_t elements;
    uint32_t group, first, end; /* operators: first of the group, of the chain, behind the chain */
} qxr_chain;

typedef struct qxr_isa {
    const char *name;
    const struct qxr_isa *parent;        /* gives the kernels this one lacks; null for scalar, which has all */
    int (*available)(void);
    const struct qxr_isa *(*here)(void); /* the set as this processor has it; null where none lacks a part of it */
    const qxr_conv_kernel *const *conv;  /* best first, null at the end */
    qxr_tile_function *tile[QXR_OPCODES]; /* by opcode; conv2d goes through `conv` */
    void (*load)(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, int32_t *x);
    void (*store)(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, const int32_t *y);
    /* Three planes of bytes, behind each other, to pixels of three channels. */
    void (*interleave)(const uint8_t *planes, size_t pixels, uint8_t *to);
    int (*chain)(const qxr_chain *chain, const qxr_tile *tile); /* may be null, or return 0: operator by operator */
    /* The first operator of a group with the chain behind it, which may be empty: a convolution by this kernel, or one of
     * another kind if conv is null. May be null, or return 0 with nothing done. */
    int (*whole_chain)(const qxr_conv_kernel *kernel, const qxr_conv *conv, const qxr_conv_buffers *buffers,
                       const qxr_chain *chain, const qxr_tile *tile);
    uint32_t tile_elements;              /* largest tile */
    uint32_t tile_channels;              /* channels of a tile, where the tensor has enough pixels to fill it */
    uint32_t block_channels;             /* of the widest block of weights */
} qxr_isa;

/* isa.c */
extern const qxr_isa qxr_isa_scalar, qxr_isa_avx2, qxr_isa_avx512vnni, qxr_isa_amx, qxr_isa_simd128,
    qxr_isa_neon, qxr_isa_dotprod, qxr_isa_i8mm;
extern const qxr_conv_kernel qxr_scalar_conv_kernel;
const qxr_isa *qxr_model_isa(const qxr_model *model);
qxr_tile_function *qxr_tile_kernel(const qxr_isa *isa, uint32_t opcode);
const qxr_conv_kernel *qxr_choose_conv(const qxr_isa *isa, const qxr_conv *conv);

/* conv.c */
void qxr_describe_conv(const qxr_model *model, uint32_t op_index, qxr_conv *conv);

static inline uint32_t qxr_min(uint32_t a, uint32_t b) { return a < b ? a : b; }
static inline uint32_t qxr_max(uint32_t a, uint32_t b) { return a > b ? a : b; }
static inline size_t qxr_round_up(size_t n, size_t unit) { return (n + unit - 1u) / unit * unit; }
static inline uint32_t qxr_pixels(const qxr_tensor *t) { return t->extent[1] * t->extent[2]; }
static inline uint32_t qxr_elements(const qxr_tensor *t) { return t->extent[0] * qxr_pixels(t); }

/* The wrapping sum and product: what the proof covers never wraps, and a hostile file must not reach undefined behaviour. */
static inline int32_t qxr_wrap_add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
static inline int32_t qxr_wrap_mul(int32_t a, int32_t b) { return (int32_t)((uint32_t)a * (uint32_t)b); }

/* A window position along one axis: where tap `tap` of output `at` lies in the input, or a number at or above the
 * input's extent where it lies in the padding. */
static inline uint32_t qxr_input_at(const qxr_op *op, uint32_t axis, uint32_t at, uint32_t tap)
{
    return at * op->stride[axis] + tap * op->dilation[axis] - op->padding[2u * axis];
}

/* The constants of an operator. */
static inline const uint8_t *qxr_constants(const qxr_work *work)
{
    return work->model->bytes + work->op->constant_offset;
}

static inline const int32_t *qxr_constants32(const qxr_work *work)
{
    return (const int32_t *)(const void *)qxr_constants(work);
}

/* Thresholds of one operator, docs/packed-format.md section 4. */
typedef struct qxr_steps {
    const int32_t *thresholds; /* [count][stride] from the tile's first channel on */
    const int32_t *levels;     /* [count + 1], or null: first + code * step */
    const uint8_t *signs;      /* bit c of channel c, or null */
    uint32_t count, stride;    /* stride 0: all channels share the thresholds[count] */
    int32_t first, step;
} qxr_steps;

static inline qxr_steps qxr_read_steps(const qxr_work *work, const qxr_tile *tile)
{
    const qxr_op *op = work->op;
    const int per_channel = (op->flags & QXR_PER_CHANNEL) != 0;
    const size_t width = per_channel ? work->out->extent[0] : 1u;
    const int32_t *next = qxr_constants32(work);
    qxr_steps s = {0};
    s.thresholds = next + (per_channel ? tile->channel : 0u);
    s.stride = per_channel ? (uint32_t)width : 0u;
    s.count = op->count;
    s.first = op->first;
    s.step = op->second;
    next += op->count * width;
    if (op->flags & QXR_LEVEL_TABLE) {
        s.levels = next;
        next += op->count + 1u;
    }
    if (op->flags & QXR_SIGNS)
        s.signs = (const uint8_t *)next;
    return s;
}

/* Whether the sign of a channel of the tensor is -1. */
static inline int qxr_is_negative(const qxr_steps *s, uint32_t channel)
{
    const uint32_t bit = s->stride ? channel : 0u;
    return s->signs && (s->signs[bit / 8u] >> (bit % 8u) & 1u);
}

#endif
