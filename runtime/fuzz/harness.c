/* libFuzzer harness: opens a file and, where the loader accepts it and it is small, runs it on every instruction set
 * and checks what the loader promised: every value within its claimed range, equal outputs for any kernels, threads and
 * rubbish in the arena, and no byte written beside arena and outputs (AddressSanitizer watches the heap). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "crc.h"

enum { LARGEST_ARENA = 1 << 24, MOST_WORK = 1 << 20, MAX_ENDS = 64, THREADS = 3, GUARD = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "BROKEN PROMISE: %s\n", what);
        abort();
    }
}

/* ---- how long a run would take ---- */

static uint64_t work_of(const qxr_model *model, uint32_t index)
{
    const qxr_op *op = qxr_get_op(model, index);
    const qxr_tensor *out = qxr_get_tensor(model, qxr_get_header(model)->input_count + index);
    uint64_t each = 1 + op->count;
    if (op->opcode == QXR_CONV2D || op->opcode == QXR_MAX_POOL || op->opcode == QXR_SUM_POOL)
        each = (uint64_t)op->window[0] * op->window[1];
    if (op->opcode == QXR_CONV2D)
        each *= qxr_get_tensor(model, op->input[0])->extent[0] / op->groups;
    if (op->opcode == QXR_L2_NORM)
        each = out->extent[0];
    return each > MOST_WORK ? MOST_WORK + 1u : each * qxr_elements64(out);
}

static int is_quick(const qxr_model *model)
{
    const qxr_header *h = qxr_get_header(model);
    uint64_t work = 0;
    if (h->arena_size > LARGEST_ARENA || h->input_count > MAX_ENDS || h->output_count > MAX_ENDS)
        return 0;
    for (uint32_t k = 0; k < h->op_count; k++) {
        work += work_of(model, k);
        if (work > MOST_WORK)
            return 0;
    }
    return 1;
}

/* ---- one run ---- */

typedef struct ends {
    uint8_t *inputs[MAX_ENDS];
    int32_t *outputs[MAX_ENDS];
} ends;

static size_t output_bytes(const qxr_model *model, uint32_t i)
{
    qxr_tensor_info info;
    require(qxr_output_info(model, i, &info) == QXR_OK, "an output has information");
    return sizeof(int32_t) * info.elements;
}

/* Bytes of the file's own checksum: any, only 0 and 255, or all one of these. */
static void make_inputs(const qxr_model *model, ends *e, uint32_t kind)
{
    uint32_t state = qxr_get_header(model)->crc | 1u;
    for (uint32_t i = 0; i < qxr_input_count(model); i++) {
        qxr_tensor_info info;
        require(qxr_input_info(model, i, &info) == QXR_OK, "an input has information");
        e->inputs[i] = malloc(info.elements);
        for (uint32_t k = 0; k < info.elements; k++) {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            e->inputs[i][k] = (uint8_t)(kind == 0 ? state : kind == 1 ? 0u - (state >> 7 & 1u) : 0u - (kind & 1u));
        }
    }
}

static void make_outputs(const qxr_model *model, ends *e)
{
    for (uint32_t i = 0; i < qxr_output_count(model); i++)
        e->outputs[i] = malloc(output_bytes(model, i));
}

static void free_all(const qxr_model *model, ends *e)
{
    for (uint32_t i = 0; i < qxr_input_count(model); i++)
        free(e->inputs[i]);
    for (uint32_t i = 0; i < qxr_output_count(model); i++)
        free(e->outputs[i]);
}

static void check_values(void *context, uint32_t tensor, uint32_t pixel, uint32_t pixels, uint32_t channel,
                         uint32_t channels, const int32_t *values)
{
    const qxr_model *model = context;
    const qxr_tensor *t = qxr_get_tensor(model, tensor);
    const qxr_claim claim = qxr_claim_of(model, t);
    require((uint64_t)pixel + pixels <= (uint64_t)t->extent[1] * t->extent[2], "a tile lies in its tensor");
    require((uint64_t)channel + channels <= t->extent[0], "a tile has channels of its tensor");
    for (uint32_t p = 0; p < pixels; p++)
        for (uint32_t c = 0; c < channels; c++) {
            const int64_t value = values[(size_t)p * channels + c];
            const qxr_range at = {value, value};
            require(qxr_within(&claim, channel + c, at), "a value lies in its claimed range");
        }
}

/* Tasks in the reverse order: whoever depends on the order shows here. */
static void backwards(void *context, uint32_t count, void (*work)(void *argument, uint32_t index), void *argument)
{
    (void)context;
    for (uint32_t i = count; i > 0; i--)
        work(argument, i - 1);
}

/* With a tap every operator's values are checked; without one, groups run as they do for users, fused. */
static void run(const qxr_model *model, const ends *e, uint32_t threads, int tapped, uint8_t rubbish)
{
    const size_t size = qxr_arena_size(model, threads);
    qxr_host host = {.threads = threads,
                     .parallel = threads > 1 ? backwards : NULL,
                     .tap = tapped ? check_values : NULL,
                     .tap_context = (void *)(uintptr_t)model};
    uint8_t *block = aligned_alloc(64, (size + 2 * GUARD + 63) / 64 * 64), *arena = block + GUARD;
    qxr_status status;
    memset(block, rubbish, size + 2 * GUARD);
    status = qxr_run(model, arena, size, (const uint8_t *const *)e->inputs, (int32_t *const *)e->outputs, &host);
    require(status == QXR_OK, "an accepted model runs");
    for (uint32_t i = 0; i < GUARD; i++)
        require(block[i] == rubbish && arena[size + i] == rubbish, "nothing beside the arena is written");
    free(block);
}

static void require_equal(const qxr_model *model, const ends *a, const ends *b)
{
    for (uint32_t i = 0; i < qxr_output_count(model); i++)
        require(memcmp(a->outputs[i], b->outputs[i], output_bytes(model, i)) == 0, "outputs are equal");
}

/* ---- all runs ---- */

static void run_isa(qxr_model *model, const char *name, const ends *expected)
{
    uint8_t *packed;
    size_t size;
    ends e = *expected;
    require(qxr_select_isa(model, name) == QXR_OK, "an available instruction set can be chosen");
    size = qxr_prepack_size(model);
    packed = aligned_alloc(64, (size + 63) / 64 * 64 + 64);
    require(qxr_prepack(model, packed, size) == QXR_OK, "weights are prepacked");
    make_outputs(model, &e);
    run(model, &e, 1, 1, 0xA5);
    require_equal(model, expected, &e);
    run(model, &e, 1, 0, 0x5A);
    require_equal(model, expected, &e);
    run(model, &e, THREADS, 0, 0x3C);
    require_equal(model, expected, &e);
    for (uint32_t i = 0; i < qxr_output_count(model); i++)
        free(e.outputs[i]);
    free(packed);
}

static void run_everywhere(qxr_model *model)
{
    for (uint32_t turn = 0; turn < 2; turn++) {
        ends expected;
        make_inputs(model, &expected, turn == 0 ? 0 : 1 + qxr_get_header(model)->crc % 3u);
        make_outputs(model, &expected);
        require(qxr_select_isa(model, "scalar") == QXR_OK, "scalar is always there");
        run(model, &expected, 1, 1, 0xFF);
        for (uint32_t i = 0; qxr_isa_name(i) != NULL; i++)
            if (qxr_isa_available(qxr_isa_name(i)))
                run_isa(model, qxr_isa_name(i), &expected);
        free_all(model, &expected);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    qxr_model model;
    qxr_status status;
    memcpy(copy, data, size);
    status = qxr_open(copy, size, &model);
    require(status >= QXR_OK && status < QXR_STATUS_COUNT, "the status is one of the table");
    require(status == QXR_OK || qxr_tensor_count(&model) == 0, "a refused model is empty");
    if (status == QXR_OK && is_quick(&model))
        run_everywhere(&model);
    require(memcmp(copy, data, size) == 0, "the file is not written");
    free(copy);
    return 0;
}
