/* The speed of every kernel on the rows of the table that it suits, or with --check its equality with the scalar one.
 *
 *     qxr_bench [--check] [--isa NAME] [--shape TEXT] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conv_model.h"
#include "plan.h"
#include "shapes.h"
#include "timing.h"

#define AS_SHAPE(...) {__VA_ARGS__},
static const qxr_shape shapes[] = {QXR_SHAPES(AS_SHAPE)};

enum { SHAPES = sizeof shapes / sizeof shapes[0], CHECKED_EXTENT = 15, MAX_KERNELS = 64 };

/* One tile; with `chained` as the executor makes it where nobody looks on, which may be in 16 bits: returns 1. */
static int make_tile(const qxr_isa *isa, const qxr_conv_kernel *kernel, const qxr_conv_model *m,
                     const qxr_conv_buffers *buffers, const qxr_tile *tile, int chained, int32_t *tile_memory)
{
    const qxr_chain none = {&m->model, NULL, tile_memory, isa->tile_elements, 0, 1, 1};
    if (chained && isa->whole_chain && isa->whole_chain(kernel, &m->conv, buffers, &none, tile))
        return 1;
    kernel->tile(&m->conv, buffers, tile, tile_memory);
    return 0;
}

static void keep_run(const int32_t *tile_memory, size_t first, size_t count, int is_words, int32_t *keep)
{
    const int16_t *words = (const int16_t *)(const void *)tile_memory;
    for (size_t i = 0; i < count; i++)
        keep[i] = is_words ? words[first + i] : tile_memory[first + i];
}

/* The whole result, tile after tile; y[pixels][channels] where `keep`, else one tile. */
static void run_conv(const qxr_isa *isa, const qxr_conv_kernel *kernel, const qxr_conv_model *m,
                     const qxr_conv_buffers *buffers, int chained, int32_t *tile_memory, int32_t *keep)
{
    const uint32_t pixels = qxr_pixels(m->conv.out), channels = m->conv.out->extent[0];
    uint32_t n, c;
    qxr_tile_shape(isa, m->conv.out, kernel->packed_size(&m->conv), &n, &c);
    for (uint32_t p = 0; p < pixels; p += n)
        for (uint32_t o = 0; o < channels; o += c) {
            const qxr_tile tile = {p, qxr_min(n, pixels - p), o, qxr_min(c, channels - o)};
            const int is_words = make_tile(isa, kernel, m, buffers, &tile, chained, tile_memory);
            for (uint32_t r = 0; keep && r < tile.pixels; r++)
                keep_run(tile_memory, (size_t)r * tile.channels, tile.channels, is_words,
                         keep + (size_t)(p + r) * channels + o);
        }
}

typedef struct bench {
    const qxr_isa *isa;
    const qxr_conv_kernel *kernel;
    const qxr_conv_model *model;
    qxr_conv_buffers buffers;
    uint8_t *packed, *scratch;
    int32_t *tile;
} bench;

static bench prepare(const qxr_isa *isa, const qxr_conv_kernel *kernel, const qxr_conv_model *model)
{
    bench b = {isa, kernel, model, {0}, NULL, NULL, NULL};
    b.packed = qxr_take(kernel->packed_size(&model->conv));
    b.scratch = qxr_take(kernel->scratch_size(&model->conv));
    b.tile = qxr_take(isa->tile_elements * sizeof(int32_t));
    if (kernel->pack)
        kernel->pack(&model->conv, b.packed);
    b.buffers.input = model->input;
    b.buffers.packed = b.packed;
    b.buffers.scratch = b.scratch;
    return b;
}

static void finish(bench *b)
{
    free(b->packed);
    free(b->scratch);
    free(b->tile);
}

static void run_bench(void *argument)
{
    const bench *b = argument;
    run_conv(b->isa, b->kernel, b->model, &b->buffers, 1, b->tile, NULL);
}

/* 0 where the result of the kernel is the scalar kernel's. */
static int differs(bench *b)
{
    const size_t bytes = (size_t)qxr_elements(b->model->conv.out) * sizeof(int32_t);
    bench scalar = prepare(&qxr_isa_scalar, &qxr_scalar_conv_kernel, b->model);
    int32_t *expected = qxr_take(bytes), *got = qxr_take(bytes);
    int different = 0;
    run_conv(scalar.isa, scalar.kernel, b->model, &scalar.buffers, 0, scalar.tile, expected);
    for (int chained = 0; chained < 2; chained++) {
        run_conv(b->isa, b->kernel, b->model, &b->buffers, chained, b->tile, got);
        different = different || memcmp(expected, got, bytes) != 0;
    }
    free(expected);
    free(got);
    finish(&scalar);
    return different;
}

/* Each kernel of each instruction set is told once for a shape, though its descendants inherit it. */
static int visit(const qxr_isa *isa, const qxr_shape *shape, int check, uint32_t *visits)
{
    qxr_conv_model model;
    int failures = 0;
    qxr_make_conv_model(shape, 1, &model);
    for (uint32_t i = 0; isa->conv[i]; i++) {
        const qxr_conv_kernel *kernel = isa->conv[i];
        if (!kernel->suits(&model.conv))
            continue;
        bench b = prepare(isa, kernel, &model);
        visits[i]++;
        if (check && differs(&b)) {
            printf("FAILED %s: %s is not what the scalar kernel computes\n", kernel->name, shape->name);
            failures++;
        } else if (!check) {
            printf("%-18s %-36s %9.2f  GMAC/s%s\n", kernel->name, shape->name, b.model->macs / qxr_time_call(run_bench, &b) / 1e9,
                   qxr_choose_conv(isa, &model.conv) == kernel ? "" : "  (not chosen)");
            fflush(stdout);
        }
        finish(&b);
    }
    qxr_free_conv_model(&model);
    return failures;
}

/* --check looks at small images, so that the scalar kernel takes no minutes. */
static qxr_shape checked(qxr_shape shape)
{
    shape.height = qxr_min(shape.height, CHECKED_EXTENT);
    shape.width = qxr_min(shape.width, CHECKED_EXTENT);
    return shape;
}

static int visit_isa(const char *name, int check, const char *only)
{
    qxr_model model = {0};
    uint32_t visits[MAX_KERNELS] = {0};
    const qxr_isa *isa;
    int failures = 0;
    if (qxr_select_isa(&model, name) != QXR_OK)
        return 0;
    isa = qxr_model_isa(&model);
    for (uint32_t i = 0; i < SHAPES; i++)
        if (!only || strstr(shapes[i].name, only)) {
            const qxr_shape shape = check ? checked(shapes[i]) : shapes[i];
            failures += visit(isa, &shape, check, visits);
        }
    for (uint32_t i = 0; isa->conv[i] && check && !only; i++) {
        printf("%s: %u shapes\n", isa->conv[i]->name, (unsigned)visits[i]);
        if (!visits[i]) {
            printf("FAILED %s: no row of the table suits it\n", isa->conv[i]->name);
            failures++;
        }
    }
    return failures + qxr_visit_operators(isa, check, only);
}

int main(int argc, char **argv)
{
    int check = 0, failures = 0;
    const char *isa = NULL, *shape = NULL, *name;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--check"))
            check = 1;
        else if (!strcmp(argv[i], "--isa") && i + 1 < argc)
            isa = argv[++i];
        else if (!strcmp(argv[i], "--shape") && i + 1 < argc)
            shape = argv[++i];
        else
            return 2;
    }
    for (uint32_t i = 0; (name = qxr_isa_name(i)) != NULL; i++)
        if (!isa || !strcmp(name, isa))
            failures += visit_isa(name, check, shape);
    return failures != 0;
}
