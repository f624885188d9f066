#define _POSIX_C_SOURCE 200809L /* sigset_t and pthread_sigmask beside -std=c11 */

#include "workspace.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "pool.h"

#define ARENA_ALIGN 64u

/* One call of workspace_run, shared by its threads. */
typedef struct job {
    workspace *space;
    const samples *batch;
    size_t count;        /* samples that run side by side */
    atomic_size_t next;  /* first one nobody has taken */
    atomic_int status;   /* of the first run that failed */
} job;

/* Where the results of one sample go. */
typedef struct tap_target {
    const workspace *space;
    const samples *batch;
    size_t sample;
} tap_target;

/* One run with a stopwatch. */
typedef struct stopwatch {
    int64_t *times;
    int64_t at; /* when the last lap began */
} stopwatch;

static int64_t nanoseconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void lap(stopwatch *watch, size_t index)
{
    const int64_t now = nanoseconds();
    watch->times[index] += now - watch->at;
    watch->at = now;
}

static void passed(void *context, uint32_t first, uint32_t end)
{
    (void)first;
    lap(context, end - 1u);
}

static size_t aligned(size_t bytes) { return (bytes + ARENA_ALIGN - 1u) / ARENA_ALIGN * ARENA_ALIGN; }

static void store_tile(void *context, uint32_t tensor, uint32_t pixel, uint32_t pixels, uint32_t channel,
                       uint32_t channels, const int32_t *values)
{
    const tap_target *target = context;
    qxr_tensor_info info;
    if (qxr_tensor_info_at(target->space->model, tensor, &info) != QXR_OK) {
        return;
    }
    const size_t area = info.elements / info.extent[0];
    int32_t *sample = (int32_t *)target->batch->tensors[tensor] + target->sample * info.elements;
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < channels; c++) {
            sample[(channel + c) * area + pixel + p] = values[p * channels + c];
        }
    }
}

static void run_sample(job *whole, uint32_t slot, size_t sample, void *arena, size_t arena_bytes, qxr_host host)
{
    workspace *space = whole->space;
    const uint32_t n_inputs = qxr_input_count(space->model), n_outputs = qxr_output_count(space->model);
    const uint8_t **inputs = space->inputs + (size_t)slot * n_inputs;
    int32_t **outputs = space->outputs + (size_t)slot * n_outputs;
    tap_target target = {space, whole->batch, sample};
    for (uint32_t i = 0; i < n_inputs; i++) {
        inputs[i] = (const uint8_t *)whole->batch->inputs[i] + sample * space->input_elements[i];
    }
    for (uint32_t i = 0; i < n_outputs; i++) {
        outputs[i] = (int32_t *)whole->batch->outputs[i] + sample * space->output_elements[i];
    }
    if (whole->batch->tensors != NULL) {
        host.tap = store_tile;
        host.tap_context = &target;
    }
    stopwatch watch = {whole->batch->times, 0};
    if (watch.times != NULL) {
        host.passed = passed;
        host.passed_context = &watch;
        watch.at = nanoseconds();
    }
    const qxr_status status = qxr_run(space->model, arena, arena_bytes, inputs, outputs, &host);
    if (watch.times != NULL) {
        lap(&watch, qxr_tensor_count(space->model));
    }
    if (status != QXR_OK) {
        int none = QXR_OK;
        atomic_compare_exchange_strong(&whole->status, &none, (int)status);
    }
}

static void run_samples(void *argument, uint32_t slot)
{
    job *whole = argument;
    workspace *space = whole->space;
    uint8_t *arena = space->arenas + slot * space->arena_bytes;
    for (;;) {
        const size_t sample = atomic_fetch_add(&whole->next, 1u);
        if (sample >= whole->count) {
            return;
        }
        run_sample(whole, slot, sample, arena, space->arena_bytes, (qxr_host){0});
    }
}

qxr_status workspace_run(workspace *space, const samples *batch)
{
    const size_t side_by_side = batch->times == NULL ? batch->count - batch->count % space->threads : 0;
    job whole = {.space = space, .batch = batch, .count = space->team != NULL ? side_by_side : batch->count};
    atomic_init(&whole.next, 0u);
    atomic_init(&whole.status, QXR_OK);
    if (space->team == NULL) {
        run_samples(&whole, 0);
        return (qxr_status)atomic_load(&whole.status);
    }
    if (whole.count > 0) {
        pool_parallel(space->team, space->threads, run_samples, &whole);
    }
    const qxr_host host = {.threads = space->threads, .parallel = pool_parallel, .context = space->team};
    for (size_t sample = whole.count; sample < batch->count; sample++) {
        run_sample(&whole, 0, sample, space->arenas, space->shared_arena_bytes, host);
    }
    return (qxr_status)atomic_load(&whole.status);
}

static int allocate(workspace *space)
{
    const uint32_t n_inputs = qxr_input_count(space->model), n_outputs = qxr_output_count(space->model);
    const size_t threads = space->threads;
    space->arena_bytes = aligned(qxr_arena_size(space->model, 1));
    space->shared_arena_bytes = threads > 1 ? aligned(qxr_arena_size(space->model, space->threads)) : 0;
    if (space->arena_bytes > (SIZE_MAX / 2 - ARENA_ALIGN) / threads) {
        return 0;
    }
    size_t bytes = space->arena_bytes * threads;
    bytes = bytes < space->shared_arena_bytes ? space->shared_arena_bytes : bytes;
    space->block = malloc(bytes + ARENA_ALIGN);
    space->input_elements = calloc(n_inputs, sizeof(size_t));
    space->output_elements = calloc(n_outputs, sizeof(size_t));
    space->inputs = calloc(threads * n_inputs, sizeof(*space->inputs));
    space->outputs = calloc(threads * n_outputs, sizeof(*space->outputs));
    if (!space->block || !space->input_elements || !space->output_elements || !space->inputs || !space->outputs) {
        return 0;
    }
    space->arenas = (uint8_t *)space->block + (ARENA_ALIGN - (uintptr_t)space->block % ARENA_ALIGN) % ARENA_ALIGN;
    return 1;
}

workspace *workspace_new(const qxr_model *model, uint32_t threads)
{
    workspace *space = calloc(1, sizeof(workspace));
    if (space == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    space->model = model;
    space->threads = threads;
    space->process = (long)getpid();
    if (!allocate(space)) {
        workspace_free(space);
        errno = ENOMEM;
        return NULL;
    }
    qxr_tensor_info info;
    for (uint32_t i = 0; qxr_input_info(model, i, &info) == QXR_OK; i++) {
        space->input_elements[i] = info.elements;
    }
    for (uint32_t i = 0; qxr_output_info(model, i, &info) == QXR_OK; i++) {
        space->output_elements[i] = info.elements;
    }
    if (threads > 1) {
        space->team = pool_new(threads);
        if (space->team == NULL) {
            const int error = errno;
            workspace_free(space);
            errno = error;
            return NULL;
        }
    }
    return space;
}

void workspace_free(workspace *space)
{
    if (space == NULL) {
        return;
    }
    pool_free(space->team);
    free(space->outputs);
    free(space->inputs);
    free(space->output_elements);
    free(space->input_elements);
    free(space->block);
    free(space);
}

int workspace_is_usable(const workspace *space) { return space->process == (long)getpid(); }
