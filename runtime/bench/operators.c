/* The rows of the table that are no convolutions: elements a second, or equality with the scalar kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op_model.h"
#include "plan.h"
#include "shapes.h"
#include "timing.h"

#define AS_ROW(...) {__VA_ARGS__},
static const qxr_op_row rows[] = {QXR_OPERATORS(AS_ROW)};

enum { ROWS = sizeof rows / sizeof rows[0] };

typedef struct pass {
    const qxr_isa *isa;
    qxr_tile_function *kernel;
    qxr_work *work;
    int32_t *tile;
    int32_t *keep; /* null, or where the whole result goes, tile after tile */
} pass;

/* The whole result. Operands of elementwise operators are taken as tiles that follow each other. */
static void run_pass(void *argument)
{
    const pass *run = argument;
    const qxr_tensor *out = run->work->out;
    const uint32_t pixels = qxr_pixels(out), channels = out->extent[0];
    const int32_t *operand = (const int32_t *)(const void *)run->work->arena;
    uint32_t n, m;
    size_t done = 0;
    qxr_tile_shape(run->isa, out, 0, &n, &m);
    for (uint32_t p = 0; p < pixels; p += n)
        for (uint32_t c = 0; c < channels; c += m) {
            const qxr_tile tile = {p, qxr_min(n, pixels - p), c, qxr_min(m, channels - c)};
            const size_t count = (size_t)tile.pixels * tile.channels;
            run->work->x[0] = operand + done;
            run->work->x[1] = operand + qxr_elements(out) + done;
            run->kernel(run->work, &tile, run->tile);
            if (run->keep)
                memcpy(run->keep + done, run->tile, count * sizeof *run->keep);
            done += count;
        }
}

/* Both kernels on the tiles of one instruction set. */
static int differs(const pass *run)
{
    const size_t bytes = (size_t)qxr_elements(run->work->out) * sizeof(int32_t);
    pass got = *run, expected = *run;
    int different;
    got.keep = qxr_take(bytes);
    expected.keep = qxr_take(bytes);
    expected.kernel = qxr_isa_scalar.tile[run->work->op->opcode];
    run_pass(&got);
    run_pass(&expected);
    different = memcmp(got.keep, expected.keep, bytes) != 0;
    free(got.keep);
    free(expected.keep);
    return different;
}

static int visit(const qxr_isa *isa, const qxr_op_row *row, int check)
{
    qxr_op_model model;
    pass run = {isa, isa->tile[row->opcode], NULL, qxr_take(isa->tile_elements * sizeof(int32_t)), NULL};
    int failed;
    qxr_make_op_model(row, &model);
    run.work = &model.work;
    failed = check && differs(&run);
    if (failed)
        printf("FAILED %s: %s is not what the scalar kernel computes\n", isa->name, row->name);
    if (!check)
        printf("%-18s %-36s %9.2f  Gelement/s\n", isa->name, row->name,
               qxr_elements(model.work.out) / qxr_time_call(run_pass, &run) / 1e9);
    qxr_free_op_model(&model);
    free(run.tile);
    return failed;
}

int qxr_visit_operators(const qxr_isa *isa, int check, const char *only)
{
    uint32_t visits[QXR_OPCODES] = {0};
    int failures = 0;
    for (uint32_t i = 0; i < ROWS; i++)
        if (isa->tile[rows[i].opcode] && (!only || strstr(rows[i].name, only))) {
            failures += visit(isa, &rows[i], check);
            visits[rows[i].opcode]++;
        }
    /* Operators that only copy are portable C everywhere, and replayed from files. */
    for (uint32_t opcode = 0; opcode < QXR_OPCODES && check && !only && isa->parent; opcode++)
        if (isa->tile[opcode] && !visits[opcode]) {
            printf("FAILED %s: no row of the table has operator %u\n", isa->name, (unsigned)opcode);
            failures++;
        }
    return failures;
}
