/* qxr: runs networks in the packed format .qpk (docs/packed-format.md) in pure integer arithmetic.
 *
 * The library allocates nothing, keeps no state of its own, uses no floating point and no library function but
 * memcpy and memset. A model may be used by several threads at once, each with its own arena.
 *
 *     qxr_model model;
 *     qxr_status status = qxr_open(bytes, size, &model);            // checks the whole file
 *     void *arena = ...;                                            // qxr_arena_size(&model, 1) bytes, 64-byte aligned
 *     status = qxr_run(&model, arena, arena_size, inputs, outputs, NULL);
 */
#ifndef QXR_H
#define QXR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QXR_VERSION_MAJOR 1
#define QXR_VERSION_MINOR 0

/* Why a file was refused or a run did not start. Every status has its own meaning and text; 0 is success. */
typedef enum qxr_status {
    QXR_OK = 0,
    QXR_ERROR_ARGUMENT,       /* a null pointer, or a number out of range, was passed in */
    QXR_ERROR_BIG_ENDIAN,     /* this processor is big-endian */
    QXR_ERROR_ALIGNMENT,      /* the file is not at an address divisible by 8, or the arena by 64 */
    QXR_ERROR_TRUNCATED,      /* shorter than its header, or than the header says */
    QXR_ERROR_MAGIC,          /* not a .qpk file */
    QXR_ERROR_VERSION,        /* a major version this library does not read */
    QXR_ERROR_CRC,            /* damaged: the checksum differs */
    QXR_ERROR_FEATURE,        /* needs a feature this library does not have, or declares one that does not occur */
    QXR_ERROR_HEADER,         /* counts or offsets of the header contradict each other */
    QXR_ERROR_LAYOUT,         /* a section or constant is not where it must be */
    QXR_ERROR_PADDING,        /* a reserved field or padding byte is not zero */
    QXR_ERROR_TENSOR,         /* a tensor record is invalid: rank, extents, storage, range */
    QXR_ERROR_OPCODE,         /* unknown operator, or unknown version of one */
    QXR_ERROR_OPERATOR,       /* parameters of an operator are invalid */
    QXR_ERROR_INPUT,          /* an operator reads a tensor that no earlier operator makes */
    QXR_ERROR_SHAPE,          /* the result's extents are not those the operator gives */
    QXR_ERROR_WEIGHTS,        /* a code, codebook or weight is out of range */
    QXR_ERROR_CONSTANTS,      /* thresholds do not ascend, a multiplier, class or other constant is out of range */
    QXR_ERROR_RANGE,          /* a claimed range is not implied by the ranges of the inputs */
    QXR_ERROR_ACCUMULATOR,    /* an accumulator could leave 32 bits */
    QXR_ERROR_GROUP,          /* an operator cannot join its group, or a slot is overwritten before it is read */
    QXR_ERROR_ARENA,          /* a tensor lies outside the arena, or overlaps one that is alive */
    QXR_ERROR_LIFETIME,       /* an operator reads a tensor after its last use, or a virtual one from another group */
    QXR_ERROR_OUTPUT,         /* the list of outputs is invalid */
    QXR_ERROR_METADATA,       /* the metadata is not where it must be, or is no JSON or zlib data */
    QXR_ERROR_LIMIT,          /* so many channels that checking the file could take minutes */
    QXR_ERROR_ISA,            /* no such instruction set, or this processor does not have it */
    QXR_ERROR_ARENA_SIZE,     /* the arena passed in is too small */
    QXR_ERROR_PREPACK_SIZE,   /* the buffer for prepacked weights is too small */
    QXR_STATUS_COUNT
} qxr_status;

/* One English sentence for a status; never null. */
const char *qxr_status_text(qxr_status status);

/* A checked model. It points into the file's bytes, which must outlive it. Fields are private. */
typedef struct qxr_model {
    const uint8_t *bytes;     /* the file */
    const void *isa;          /* kernels, chosen by qxr_select_isa */
    const uint8_t *prepacked; /* weights in the order of the kernels; null before qxr_prepack */
    uint32_t size;
    uint32_t failed_at;       /* after a failed qxr_open: the tensor at fault, for messages; an operator is named by its
                               * result, the file as a whole by 0xFFFFFFFF */
} qxr_model;

/* Checks a file completely (docs/packed-format.md, section 7) and fills in the model with the scalar kernels selected.
 * Takes time linear in the size of the file, but for arena intervals, which are compared pair by pair. */
qxr_status qxr_open(const void *bytes, size_t size, qxr_model *model);

/* An input or output of the network. */
typedef struct qxr_tensor_info {
    uint32_t rank;            /* 1 .. 3, without the batch */
    uint32_t extent[3];       /* channels first; 1 beyond the rank */
    uint32_t elements;        /* product of the extents */
    int32_t lo, hi;           /* proven range */
    uint32_t index;           /* of the tensor in the file */
} qxr_tensor_info;

uint32_t qxr_input_count(const qxr_model *model);
uint32_t qxr_output_count(const qxr_model *model);
uint32_t qxr_tensor_count(const qxr_model *model);
qxr_status qxr_input_info(const qxr_model *model, uint32_t index, qxr_tensor_info *info);
qxr_status qxr_output_info(const qxr_model *model, uint32_t index, qxr_tensor_info *info);
qxr_status qxr_tensor_info_at(const qxr_model *model, uint32_t index, qxr_tensor_info *info);

/* Metadata as stored (JSON, or zlib data). */
qxr_status qxr_metadata(const qxr_model *model, const uint8_t **bytes, size_t *size);

/* Names of the instruction sets this build has kernels for, best last; null at the end. "scalar" is always first. */
const char *qxr_isa_name(uint32_t index);
/* Whether this processor can run it (1) or not (0). */
int qxr_isa_available(const char *name);
/* Chooses kernels: a name from qxr_isa_name, or null for the best that is available. An unknown name is refused. Any earlier prepack is dropped. */
qxr_status qxr_select_isa(qxr_model *model, const char *name);
const char *qxr_selected_isa(const qxr_model *model);

/* Weights in the order of the chosen kernels, made once into a buffer of the caller, 64-byte aligned, which must outlive the model. Kernels other than scalar
 * work only with prepacked weights; without them the scalar kernels run. Size 0: nothing to prepack. */
size_t qxr_prepack_size(const qxr_model *model);
qxr_status qxr_prepack(qxr_model *model, void *buffer, size_t size);

/* Sees every tile of every result as it is computed: `pixels` pixels from `pixel` on, `channels` channels from `channel` on, values[pixels][channels]. */
typedef void (*qxr_tap)(void *context, uint32_t tensor, uint32_t pixel, uint32_t pixels, uint32_t channel,
                        uint32_t channels, const int32_t *values);

/* What the host lends a run. Zero-initialise it. */
typedef struct qxr_host {
    uint32_t threads;         /* how many tasks may run at once; 0 and 1 mean the calling thread alone */
    /* Calls work(argument, i) for every i < count, possibly at once on several threads, and returns when all have returned. */
    void (*parallel)(void *context, uint32_t count, void (*work)(void *argument, uint32_t index), void *argument);
    void *context;
    qxr_tap tap;              /* may be null; with several threads it is called from all of them */
    void *tap_context;
    /* Called on the calling thread whenever the tensors first .. end - 1 are complete: first the inputs, then the results
     * of each group of operators that run together. May be null. A host with a clock can time layers by it. */
    void (*passed)(void *context, uint32_t first, uint32_t end);
    void *passed_context;
} qxr_host;

/* Bytes of working memory for one run at a time on so many threads: the file's plan, and tiles for each thread. */
size_t qxr_arena_size(const qxr_model *model, uint32_t threads);

/* Runs the network on one sample. inputs[i]: uint8, channels first. outputs[i]: int32, channels first. host may be null. The arena is 64-byte
 * aligned and needs no initialisation; nothing outside it and the outputs is written. Equal inputs give equal outputs on any processor, instruction set and number of threads. */
qxr_status qxr_run(const qxr_model *model, void *arena, size_t arena_size, const uint8_t *const inputs[],
                   int32_t *const outputs[], const qxr_host *host);

#ifdef __cplusplus
}
#endif
#endif
