/* Everything one call of run needs besides the model: arenas, threads, pointers. Knows nothing of Python. */
#ifndef QXR_PYTHON_WORKSPACE_H
#define QXR_PYTHON_WORKSPACE_H

#include "qxr.h"

/* A batch. Every array holds `count` samples one behind the other, each channels first: inputs in uint8_t, the others
 * in int32_t. */
typedef struct samples {
    size_t count;
    void *const *inputs;
    void *const *outputs;
    void *const *tensors; /* an array for each tensor of the file, to be filled with all results; null: none wanted */
    int64_t *times;       /* nanoseconds are added: for every tensor of the file, the last ones of their groups, and one
                           * behind them for handing back outputs; then samples run one by one. Null: not wanted */
} samples;

typedef struct workspace {
    struct workspace *next; /* for lists of the owner */
    const qxr_model *model;
    uint32_t threads;
    long process; /* whose threads these are */
    struct pool *team;
    void *block; /* arenas, unaligned */
    uint8_t *arenas;
    size_t arena_bytes;        /* of one of `threads` arenas for one thread each */
    size_t shared_arena_bytes; /* of an arena for one sample and all threads, in the same memory */
    size_t *input_elements, *output_elements;
    const uint8_t **inputs; /* threads x inputs: of the sample a thread is at */
    int32_t **outputs;
} workspace;

/* Null, with errno set, without memory or threads. */
workspace *workspace_new(const qxr_model *model, uint32_t threads);

void workspace_free(workspace *space);

/* Whether it can be used in this process, which may be a child of the one that made it. */
int workspace_is_usable(const workspace *space);

/* Runs the network on every sample: as many samples at once as there are threads, and the last ones, fewer than that,
 * one by one with all threads inside each. */
qxr_status workspace_run(workspace *space, const samples *batch);

#endif
