/* Runs a .qpk file on recorded samples and compares every element of every tensor, by the tap, with what the reference
 * computed; then the outputs of a run without a tap, where operators may run together. Each instruction set that this
 * processor has, 1 to 3 threads, with and without prepacked weights.
 *
 *     qxr_replay MODEL.qpk SAMPLES [ISA]
 *
 * SAMPLES: for each sample the inputs (u8, channels first), then every tensor of the file (i32, channels first).
 * Exit status 0: all equal; 1: a difference, told in one line; 2: wrong usage. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef QXR_GUARD_PAGES
#include <sys/mman.h>
#endif

#include "qxr.h"

enum { GUARD = 64, GARBAGE = 0xA5, MAX_THREADS = 3 };

static void fail(const char *what, const char *detail, uint32_t number)
{
    printf("FAILED %s %s %u\n", what, detail, (unsigned)number);
    exit(1);
}

static void require(int condition, const char *what)
{
    if (!condition)
        fail(what, "", 0);
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    long end;
    uint8_t *bytes;
    require(file != NULL && fseek(file, 0, SEEK_END) == 0, path);
    end = ftell(file);
    require(end >= 0, path);
    *size = (size_t)end;
    rewind(file);
    bytes = malloc(*size ? *size : 1u);
    require(bytes != NULL && fread(bytes, 1, *size, file) == *size, path);
    fclose(file);
    return bytes;
}

/* What the tap compares with: the tensors of one sample, and how often each element has been seen. */
typedef struct recording {
    const qxr_model *model;
    const int32_t *values;
    uint8_t *seen;
    uint32_t tensors, elements;
} recording;

static uint32_t first_element(const qxr_model *model, uint32_t tensor)
{
    uint32_t first = 0;
    qxr_tensor_info info;
    for (uint32_t t = 0; t < tensor; t++) {
        require(qxr_tensor_info_at(model, t, &info) == QXR_OK, "tensor info");
        first += info.elements;
    }
    return first;
}

static void compare_tile(void *context, uint32_t tensor, uint32_t pixel, uint32_t pixels, uint32_t channel,
                         uint32_t channels, const int32_t *values)
{
    const recording *r = context;
    const uint32_t first = first_element(r->model, tensor);
    qxr_tensor_info info;
    require(qxr_tensor_info_at(r->model, tensor, &info) == QXR_OK, "tensor info");
    for (uint32_t p = 0; p < pixels; p++)
        for (uint32_t c = 0; c < channels; c++) {
            const uint32_t all = info.extent[1] * info.extent[2];
            const uint32_t i = first + (channel + c) * all + pixel + p;
            if (r->values[i] != values[p * channels + c])
                fail("a tensor differs:", "tensor", tensor);
            r->seen[i]++;
        }
}

typedef struct task {
    void (*work)(void *argument, uint32_t index);
    void *argument;
    uint32_t index;
} task;

static void *run_task(void *pointer)
{
    const task *t = pointer;
    t->work(t->argument, t->index);
    return NULL;
}

static void parallel(void *context, uint32_t count, void (*work)(void *argument, uint32_t index), void *argument)
{
    pthread_t threads[MAX_THREADS];
    task tasks[MAX_THREADS];
    (void)context;
    require(count <= MAX_THREADS, "more tasks than threads");
    for (uint32_t i = 0; i < count; i++) {
        const task t = {work, argument, i};
        tasks[i] = t;
        require(pthread_create(&threads[i], NULL, run_task, &tasks[i]) == 0, "pthread_create");
    }
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

#ifdef QXR_GUARD_PAGES

/* Where no tool watches the memory: a page that may not be touched, less than 64 bytes behind each block. */
enum { PAGE = 1 << 16 };

static size_t mapped_bytes(size_t size) { return (size + PAGE - 1u) / PAGE * PAGE; }

static void *aligned(size_t size)
{
    const size_t bytes = mapped_bytes(size);
    uint8_t *memory = mmap(NULL, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(memory != MAP_FAILED && mprotect(memory + bytes, PAGE, PROT_NONE) == 0, "memory");
    memset(memory, GARBAGE, bytes);
    return memory + (bytes - size) / 64u * 64u;
}

static void release(void *block, size_t size)
{
    const size_t bytes = mapped_bytes(size);
    munmap((uint8_t *)block - (bytes - size) / 64u * 64u, bytes + PAGE);
}

#else

static void *aligned(size_t size)
{
    void *memory = NULL;
    require(posix_memalign(&memory, 64, size) == 0, "memory");
    memset(memory, GARBAGE, size);
    return memory;
}

static void release(void *block, size_t size)
{
    (void)size;
    free(block);
}

#endif

static void check_guard(const uint8_t *guard, const char *what)
{
    for (uint32_t i = 0; i < GUARD; i++)
        if (guard[i] != GARBAGE)
            fail("a byte was written outside", what, i);
}

/* One run with its own arena and outputs. */
typedef struct run {
    const qxr_model *model;
    const uint8_t *sample; /* the inputs */
    const int32_t *values; /* every tensor */
    uint32_t threads;
    size_t guard;          /* bytes of guard round arena and outputs; 0: blocks of the exact size, for valgrind and ASan */
    int tapped;
} run;

static void check_output(const run *r, uint32_t index, const uint8_t *block)
{
    qxr_tensor_info info;
    require(qxr_output_info(r->model, index, &info) == QXR_OK, "output info");
    if (memcmp(block + r->guard, r->values + first_element(r->model, info.index), info.elements * 4u) != 0)
        fail("an output differs:", "output", index);
    if (r->guard) {
        check_guard(block, "an output");
        check_guard(block + r->guard + info.elements * 4u, "an output");
    }
}

static void *run_once(void *pointer)
{
    const run *r = pointer;
    const uint32_t inputs = qxr_input_count(r->model), outputs = qxr_output_count(r->model);
    const size_t size = qxr_arena_size(r->model, r->threads);
    const uint8_t **input = calloc(inputs, sizeof *input);
    uint8_t *arena = aligned(size + 2u * r->guard), **block = calloc(outputs, sizeof *block);
    int32_t **output = calloc(outputs, sizeof *output);
    recording recorded = {r->model, r->values, NULL, qxr_tensor_count(r->model), 0};
    qxr_host host = {0};
    uint32_t first_result = 0;
    qxr_tensor_info info;
    require(input && output && block, "memory");
    for (uint32_t i = 0, offset = 0; i < inputs; i++, offset += info.elements) {
        require(qxr_input_info(r->model, i, &info) == QXR_OK, "input info");
        input[i] = r->sample + offset;
        first_result += info.elements;
    }
    for (uint32_t i = 0; i < outputs; i++) {
        require(qxr_output_info(r->model, i, &info) == QXR_OK, "output info");
        block[i] = aligned(info.elements * 4u + 2u * r->guard);
        output[i] = (int32_t *)(void *)(block[i] + r->guard);
    }
    recorded.elements = first_element(r->model, recorded.tensors);
    recorded.seen = calloc(recorded.elements, 1);
    require(recorded.seen != NULL, "memory");
    host.threads = r->threads;
    host.parallel = parallel;
    host.tap = r->tapped ? compare_tile : NULL;
    host.tap_context = &recorded;
    require(qxr_run(r->model, arena + r->guard, size, input, output, &host) == QXR_OK, "qxr_run");
    for (uint32_t i = first_result; i < recorded.elements && r->tapped; i++)
        if (recorded.seen[i] != 1)
            fail("an element was not computed exactly once:", "number", i);
    for (uint32_t i = 0; i < outputs; i++)
        check_output(r, i, block[i]);
    if (r->guard) {
        check_guard(arena, "the arena");
        check_guard(arena + r->guard + size, "the arena");
    }
    for (uint32_t i = 0; i < outputs; i++) {
        require(qxr_output_info(r->model, i, &info) == QXR_OK, "output info");
        release(block[i], info.elements * 4u + 2u * r->guard);
    }
    release(arena, size + 2u * r->guard);
    free(block), free(output), free(input), free(recorded.seen);
    return NULL;
}

/* Two runs at once on one model: neither may see the other. */
static void run_interleaved(const run *a, const run *b)
{
    pthread_t other;
    run first = *a, second = *b;
    require(pthread_create(&other, NULL, run_once, &first) == 0, "pthread_create");
    run_once(&second);
    pthread_join(other, NULL);
}

static size_t input_bytes(const qxr_model *model)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < qxr_input_count(model); i++) {
        qxr_tensor_info info;
        require(qxr_input_info(model, i, &info) == QXR_OK, "input info");
        bytes += info.elements;
    }
    return bytes;
}

/* Sample `index`, its tensors copied to where i32 values are aligned. */
static run make_run(const qxr_model *model, const uint8_t *samples, size_t size, size_t index)
{
    const size_t inputs = input_bytes(model), tensors = 4u * (size_t)first_element(model, qxr_tensor_count(model));
    const uint8_t *sample = samples + index * (inputs + tensors);
    int32_t *values = aligned(tensors);
    const run r = {model, sample, values, 1, GUARD, 1};
    require(size && size % (inputs + tensors) == 0, "samples of another size than the model's");
    memcpy(values, sample + inputs, tensors);
    return r;
}

static void free_run(const run *r)
{
    release((void *)(uintptr_t)r->values, 4u * (size_t)first_element(r->model, qxr_tensor_count(r->model)));
}

static void replay(const qxr_model *model, const uint8_t *samples, size_t size)
{
    const size_t sample_bytes = input_bytes(model) + 4u * (size_t)first_element(model, qxr_tensor_count(model));
    const size_t count = size / sample_bytes;
    run first = make_run(model, samples, size, 0), last = make_run(model, samples, size, count - 1u);
    for (size_t s = 0; s < count; s++) {
        run r = make_run(model, samples, size, s);
        for (r.threads = 1; r.threads <= MAX_THREADS; r.threads++) {
            r.guard = r.threads == 2u ? 0 : GUARD;
            for (r.tapped = 2; r.tapped-- > 0;)
                run_once(&r);
        }
        free_run(&r);
    }
    first.tapped = last.tapped = 0;
    run_interleaved(&first, &last);
    free_run(&first);
    free_run(&last);
}

static void replay_isa(qxr_model *model, const char *isa, const uint8_t *samples, size_t size)
{
    size_t packed_bytes;
    uint8_t *packed;
    require(qxr_select_isa(model, isa) == QXR_OK, isa);
    require(strcmp(qxr_selected_isa(model), isa) == 0, isa);
    packed_bytes = qxr_prepack_size(model);
    packed = aligned(packed_bytes ? packed_bytes : 1u);
    replay(model, samples, size);
    require(qxr_prepack(model, packed, packed_bytes) == QXR_OK, "qxr_prepack");
    replay(model, samples, size);
    printf("%s ok\n", isa);
    release(packed, packed_bytes ? packed_bytes : 1u);
}

int main(int argc, char **argv)
{
    size_t file_bytes, sample_bytes;
    uint8_t *file, *samples;
    qxr_model model;
    qxr_status status;
    const char *name;
    if (argc < 3 || argc > 4)
        return 2;
    file = read_file(argv[1], &file_bytes);
    samples = read_file(argv[2], &sample_bytes);
    status = qxr_open(file, file_bytes, &model);
    if (status != QXR_OK)
        fail("qxr_open:", qxr_status_text(status), model.failed_at);
    for (uint32_t i = 0; (name = qxr_isa_name(i)) != NULL; i++)
        if (qxr_isa_available(name) && (argc == 3 || strcmp(name, argv[3]) == 0))
            replay_isa(&model, name, samples, sample_bytes);
    free(samples);
    free(file);
    return 0;
}
