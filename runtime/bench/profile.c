/* Where the time of a network goes: the operators of a .qpk file, one thread.
 *
 *     qxr_profile MODEL.qpk [--isa NAME] [--runs N]
 *
 * The tap of a run sees every tile when an operator has made it; the time since the tap before belongs to that operator,
 * so the first of a group also has what the group needs to begin. Prints the fewest milliseconds of any run, for each
 * operator and in all. With a tap operators run one by one; without one they may run together, which is faster. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels.h"
#include "plan.h"
#include "timing.h"

typedef struct profile {
    double last;
    double *seconds; /* by tensor */
} profile;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void see(void *context, uint32_t tensor, uint32_t pixel, uint32_t pixels, uint32_t channel, uint32_t channels,
                const int32_t *values)
{
    profile *p = context;
    const double at = now();
    (void)pixel, (void)pixels, (void)channel, (void)channels, (void)values;
    p->seconds[tensor] += at - p->last;
    p->last = at;
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes;
    if (!file || fseek(file, 0, SEEK_END) != 0)
        return NULL;
    *size = (size_t)ftell(file);
    rewind(file);
    bytes = qxr_take(*size);
    if (fread(bytes, 1, *size, file) != *size)
        return NULL;
    fclose(file);
    return bytes;
}

/* Everything a run needs, filled with noise. */
typedef struct bench {
    qxr_model model;
    size_t arena_size;
    void *arena;
    const uint8_t **inputs;
    int32_t **outputs;
} bench;

static void prepare(bench *b)
{
    b->arena_size = qxr_arena_size(&b->model, 1);
    b->arena = qxr_take(b->arena_size);
    b->inputs = calloc(qxr_input_count(&b->model), sizeof *b->inputs);
    b->outputs = calloc(qxr_output_count(&b->model), sizeof *b->outputs);
    for (uint32_t i = 0; i < qxr_input_count(&b->model); i++) {
        qxr_tensor_info info;
        uint8_t *image;
        qxr_input_info(&b->model, i, &info);
        image = qxr_take(info.elements);
        for (uint32_t k = 0; k < info.elements; k++)
            image[k] = (uint8_t)(k * 2654435761u >> 24);
        b->inputs[i] = image;
    }
    for (uint32_t i = 0; i < qxr_output_count(&b->model); i++) {
        qxr_tensor_info info;
        qxr_output_info(&b->model, i, &info);
        b->outputs[i] = qxr_take(info.elements * sizeof(int32_t));
    }
}

static double run(bench *b, profile *seen)
{
    const qxr_host host = {.tap = see, .tap_context = seen};
    const double start = now();
    if (seen)
        seen->last = start;
    if (qxr_run(&b->model, b->arena, b->arena_size, b->inputs, b->outputs, seen ? &host : NULL) != QXR_OK)
        exit(2);
    return now() - start;
}

static const char *const names[QXR_OPCODES] = {
    [QXR_CONV2D] = "conv2d", [QXR_BORDER_BIAS] = "border_bias", [QXR_THRESHOLD] = "threshold",
    [QXR_RESCALE] = "rescale", [QXR_ADD] = "add", [QXR_CLIP] = "clip", [QXR_MAX_POOL] = "max_pool",
    [QXR_SUM_POOL] = "sum_pool", [QXR_PAD] = "pad", [QXR_SLICE] = "slice", [QXR_CONCAT] = "concat",
    [QXR_RESHAPE] = "reshape", [QXR_TRANSPOSE] = "transpose", [QXR_L2_NORM] = "l2_norm",
};

static void print_op(const bench *b, uint32_t k, double seconds)
{
    const qxr_header *header = qxr_get_header(&b->model);
    const qxr_op *op = qxr_get_op(&b->model, k);
    const qxr_tensor *out = qxr_get_tensor(&b->model, header->input_count + k);
    char what[160] = "";
    if (op->opcode == QXR_CONV2D) {
        qxr_conv conv;
        qxr_describe_conv(&b->model, k, &conv);
        snprintf(what, sizeof what, "%ux%u s%u from %u, w%u %u entries, inputs to %u, %.1f GMAC/s, %s",
                 (unsigned)op->window[0], (unsigned)op->window[1], (unsigned)op->stride[0],
                 (unsigned)conv.in->extent[0], (unsigned)op->parameter, (unsigned)op->count, (unsigned)conv.input_peak,
                 (double)conv.row * qxr_elements(out) / seconds / 1e9,
                 qxr_choose_conv(qxr_model_isa(&b->model), &conv)->name);
    } else if (op->opcode == QXR_THRESHOLD) {
        snprintf(what, sizeof what, "%u steps", (unsigned)op->count);
    }
    printf("%c%4u %-12s %4u x %3u x %3u in %u  %8.4f ms  %s\n", op->flags & QXR_JOINS ? ' ' : '-', (unsigned)k,
           names[op->opcode], (unsigned)out->extent[0], (unsigned)out->extent[1], (unsigned)out->extent[2],
           (unsigned)qxr_element_bytes(out), seconds * 1e3, what);
}

int main(int argc, char **argv)
{
    bench b = {0};
    size_t size = 0, packed;
    const char *isa = NULL;
    uint32_t runs = 20, ops;
    double fastest = 1e30, profiled = 1e30, sum = 0, start, opened;
    double *best, *seconds;
    for (int i = 2; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--isa"))
            isa = argv[i + 1];
        else if (!strcmp(argv[i], "--runs"))
            runs = (uint32_t)strtoul(argv[i + 1], NULL, 10);
    }
    uint8_t *bytes = argc > 1 ? read_file(argv[1], &size) : NULL;
    start = now();
    if (!bytes || qxr_open(bytes, size, &b.model) != QXR_OK || qxr_select_isa(&b.model, isa) != QXR_OK)
        return 2;
    opened = now();
    packed = qxr_prepack_size(&b.model);
    if (qxr_prepack(&b.model, qxr_take(packed), packed) != QXR_OK)
        return 2;
    printf("open %.2f ms, prepack %.2f ms, %.2f MB, arena %.2f MB\n", (opened - start) * 1e3, (now() - opened) * 1e3,
           (double)packed / 1e6, (double)qxr_arena_size(&b.model, 1) / 1e6);
    ops = qxr_get_header(&b.model)->op_count;
    best = calloc(ops + 64u, sizeof *best);
    seconds = calloc(qxr_tensor_count(&b.model), sizeof *seconds);
    prepare(&b);
    for (uint32_t k = 0; k < ops; k++)
        best[k] = 1e30;
    for (uint32_t r = 0; r < runs; r++) {
        profile seen = {0, seconds};
        double took = run(&b, NULL);
        fastest = took < fastest ? took : fastest;
        memset(seconds, 0, qxr_tensor_count(&b.model) * sizeof *seconds);
        took = run(&b, &seen);
        profiled = took < profiled ? took : profiled;
        for (uint32_t k = 0; k < ops; k++) {
            const double mine = seconds[qxr_get_header(&b.model)->input_count + k];
            best[k] = mine < best[k] ? mine : best[k];
        }
    }
    for (uint32_t k = 0; k < ops; k++)
        sum += best[k];
    for (uint32_t k = 0; k < ops; k++)
        print_op(&b, k, best[k]);
    printf("%.3f ms, with the tap %.3f ms, sum of the fastest %.3f ms\n", fastest * 1e3, profiled * 1e3, sum * 1e3);
    return 0;
}
