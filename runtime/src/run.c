/* The executor: inputs into the arena, group after group, outputs out of it (docs/packed-format.md, section 6). */
#include "plan.h"

#include <string.h>

#ifndef __STDC_NO_ATOMICS__
#include <stdatomic.h>
#endif

/* A processor that cannot count without a library has no second thread for us either. */
#if !defined(__STDC_NO_ATOMICS__) && ATOMIC_INT_LOCK_FREE == 2
typedef atomic_uint qxr_counter;
static uint32_t take_next(qxr_counter *next) { return atomic_fetch_add_explicit(next, 1u, memory_order_relaxed); }
enum { CAN_SHARE = 1 };
#else
typedef uint32_t qxr_counter;
static uint32_t take_next(qxr_counter *next) { return (*next)++; }
enum { CAN_SHARE = 0 };
#endif

/* One group of operators, as the threads share it. */
typedef struct qxr_group {
    const qxr_model *model;
    const qxr_isa *isa;
    const qxr_host *host; /* may be null */
    uint8_t *arena, *scratch;
    const qxr_scratch *sizes;
    uint32_t first, end;  /* operators */
    uint32_t pixels, channels, tile_pixels, tile_channels;
    qxr_shares shares;
    qxr_counter next;     /* first part nobody has taken */
    const qxr_conv *conv; /* of the first operator, or null */
    const qxr_conv_kernel *kernel;
    const uint8_t *packed;
} qxr_group;

static int32_t *slot_at(const qxr_group *group, uint8_t *scratch, uint32_t slot)
{
    return (int32_t *)(void *)scratch + (size_t)slot * group->sizes->elements;
}

/* Operands of an elementwise operator: those made in the group lie in slots; others are loaded from the arena, where
 * possible into the slot of the result, which nothing else needs any more. */
static void find_operands(const qxr_group *group, uint8_t *scratch, const qxr_tile *tile, int32_t *y, qxr_work *work)
{
    int32_t *spare = slot_at(group, scratch, group->sizes->slots), *room = y;
    for (uint32_t i = 0; i < 2u && work->in[i]; i++)
        if (qxr_from_slot(group->model, work->op, group->first, i)) {
            work->x[i] = slot_at(group, scratch, qxr_slot(work->in[i]));
            if (work->x[i] == y)
                room = spare;
        }
    for (uint32_t i = 0; i < 2u && work->in[i]; i++)
        if (!work->x[i]) {
            group->isa->load(work->in[i], group->arena + work->in[i]->arena_offset, tile, room);
            work->x[i] = room;
            room = spare;
        }
}

static qxr_conv_buffers buffers_of(const qxr_group *group, uint8_t *scratch)
{
    const uint32_t tiles = group->sizes->slots + group->sizes->spares;
    const qxr_conv_buffers buffers = {group->arena + group->conv->in->arena_offset, group->packed,
                                      (uint8_t *)slot_at(group, scratch, tiles)};
    return buffers;
}

static void run_op(const qxr_group *group, uint32_t index, uint8_t *scratch, const qxr_tile *tile)
{
    const qxr_model *model = group->model;
    const uint32_t result = qxr_get_header(model)->input_count + index;
    qxr_work work = {model, qxr_get_op(model, index), {NULL, NULL}, qxr_get_tensor(model, result), group->arena,
                     {NULL, NULL}};
    int32_t *y = slot_at(group, scratch, qxr_slot(work.out));
    for (uint32_t i = 0; i < 2u; i++)
        if (work.op->input[i] != QXR_NONE16)
            work.in[i] = qxr_get_tensor(model, work.op->input[i]);
    if (work.op->opcode == QXR_CONV2D) {
        const qxr_conv_buffers buffers = buffers_of(group, scratch);
        group->kernel->tile(group->conv, &buffers, tile, y);
    } else {
        if (qxr_is_elementwise(work.op))
            find_operands(group, scratch, tile, y, &work);
        qxr_tile_kernel(group->isa, work.op->opcode)(&work, tile, y);
    }
    if (qxr_storage(work.out) != QXR_VIRTUAL)
        group->isa->store(work.out, group->arena + work.out->arena_offset, tile, y);
    if (group->host && group->host->tap)
        group->host->tap(group->host->tap_context, result, tile->pixel, tile->pixels, tile->channel, tile->channels, y);
}

/* All operators of the group for one tile. What elementwise ones leave in slots is seen by the tap alone: without
 * one they run together. */
static void run_tile(const qxr_group *group, uint8_t *scratch, const qxr_tile *tile)
{
    const int seen = group->host && group->host->tap;
    qxr_chain chain = {group->model, group->arena, slot_at(group, scratch, 0), group->sizes->elements,
                       group->first, group->first, group->end};
    if (!qxr_is_elementwise(qxr_get_op(group->model, group->first))) {
        chain.first++;
        if (!seen && group->isa->whole_chain) {
            qxr_conv_buffers buffers = {NULL, NULL, NULL};
            if (group->conv)
                buffers = buffers_of(group, scratch);
            if (group->isa->whole_chain(group->kernel, group->conv, &buffers, &chain, tile))
                return;
        }
        run_op(group, group->first, scratch, tile);
    }
    if (!seen && group->isa->chain && chain.first < chain.end && group->isa->chain(&chain, tile))
        return;
    for (uint32_t k = chain.first; k < chain.end; k++)
        run_op(group, k, scratch, tile);
}

/* A block of the tensor, tile by tile; all pixels of some channels before other channels. */
static void run_block(const qxr_group *group, uint8_t *scratch, const qxr_tile *block)
{
    const uint32_t last_channel = block->channel + block->channels, last_pixel = block->pixel + block->pixels;
    qxr_tile tile;
    for (tile.channel = block->channel; tile.channel < last_channel; tile.channel += tile.channels) {
        tile.channels = qxr_min(group->tile_channels, last_channel - tile.channel);
        for (tile.pixel = block->pixel; tile.pixel < last_pixel; tile.pixel += tile.pixels) {
            tile.pixels = qxr_min(group->tile_pixels, last_pixel - tile.pixel);
            run_tile(group, scratch, &tile);
        }
    }
}

/* Part i: some channels of all pixels, or some pixels of the channels of one tile, whose parts all come before those of
 * the next. */
static qxr_tile part_of(const qxr_group *group, uint32_t i)
{
    const qxr_shares *shares = &group->shares;
    qxr_tile part = {0, group->pixels, 0, group->channels};
    if (shares->by_channel) {
        part.channel = qxr_share_begin(shares, group->channels, i);
        part.channels = qxr_share_begin(shares, group->channels, i + 1u) - part.channel;
    } else {
        const uint32_t at = i % shares->count;
        part.channel = i / shares->count * group->tile_channels;
        part.channels = qxr_min(group->tile_channels, group->channels - part.channel);
        part.pixel = qxr_share_begin(shares, group->pixels, at);
        part.pixels = qxr_share_begin(shares, group->pixels, at + 1u) - part.pixel;
    }
    return part;
}

/* Work of one thread: parts that nobody has taken. */
static void run_parts(void *argument, uint32_t task)
{
    qxr_group *group = argument;
    const uint32_t blocks = group->shares.by_channel ? 1u : (group->channels - 1u) / group->tile_channels + 1u;
    uint8_t *scratch = group->scratch + task * group->sizes->bytes;
    for (;;) {
        const uint32_t i = take_next(&group->next);
        if (i >= group->shares.count * blocks)
            return;
        const qxr_tile part = part_of(group, i);
        run_block(group, scratch, &part);
    }
}

static void run_group(qxr_group *group, uint32_t threads)
{
    const qxr_tensor *out = qxr_get_tensor(group->model, qxr_get_header(group->model)->input_count + group->first);
    const size_t weights = qxr_weight_bytes(group->kernel, group->conv);
    group->channels = out->extent[0];
    group->pixels = qxr_pixels(out);
    qxr_tile_shape(group->isa, out, weights, &group->tile_pixels, &group->tile_channels);
    group->shares = qxr_share(out, weights, group->conv ? group->conv->row : 0u, group->tile_pixels, threads);
    if (group->shares.threads > 1u) {
        group->next = 0u;
        group->host->parallel(group->host->context, group->shares.threads, run_parts, group);
    } else {
        const qxr_tile whole = {0, group->pixels, 0, group->channels};
        run_block(group, group->scratch, &whole);
    }
}

static void report(const qxr_host *host, uint32_t first, uint32_t end)
{
    if (host && host->passed)
        host->passed(host->passed_context, first, end);
}

/* A convolution without its packed weights runs on the scalar kernel, which reads the rows of the file. */
static void choose_kernel(qxr_group *group, qxr_conv *conv, const uint8_t **next_packed)
{
    size_t bytes;
    group->conv = NULL;
    if (qxr_get_op(group->model, group->first)->opcode != QXR_CONV2D)
        return;
    qxr_describe_conv(group->model, group->first, conv);
    group->conv = conv;
    group->kernel = qxr_choose_conv(group->isa, conv);
    bytes = qxr_round_up(group->kernel->packed_size(conv), 64u);
    group->packed = *next_packed;
    if (bytes && !group->packed)
        group->kernel = &qxr_scalar_conv_kernel;
    if (bytes && group->packed)
        *next_packed += bytes;
}

static void run_groups(qxr_group *group, uint32_t threads)
{
    const uint32_t ops = qxr_get_header(group->model)->op_count, inputs = qxr_get_header(group->model)->input_count;
    const uint8_t *packed = group->model->prepacked;
    for (group->first = 0; group->first < ops; group->first = group->end) {
        qxr_conv conv;
        group->end = group->first + 1u;
        while (group->end < ops && qxr_get_op(group->model, group->end)->flags & QXR_JOINS)
            group->end++;
        choose_kernel(group, &conv, &packed);
        run_group(group, threads);
        report(group->host, inputs + group->first, inputs + group->end);
    }
}

/* Channels-first bytes of the caller to channels last; inputs have base 0. Images have one channel or three. */
static void copy_input(const qxr_isa *isa, const qxr_tensor *tensor, uint8_t *arena, const uint8_t *input)
{
    const size_t channels = tensor->extent[0], pixels = qxr_pixels(tensor);
    uint8_t *to = arena + tensor->arena_offset;
    if (channels == 1u) {
        memcpy(to, input, pixels);
        return;
    }
    if (channels == 3u) {
        while (!isa->interleave)
            isa = isa->parent;
        isa->interleave(input, pixels, to);
        return;
    }
    for (size_t c = 0; c < channels; c++, input += pixels)
        for (size_t p = 0; p < pixels; p++)
            to[p * channels + c] = input[p];
}

static void copy_output(const qxr_tensor *tensor, const uint8_t *arena, int32_t *output)
{
    const size_t channels = tensor->extent[0], pixels = qxr_pixels(tensor);
    const void *data = arena + tensor->arena_offset;
    const int32_t base = qxr_base(tensor);
    for (size_t c = 0; c < channels; c++)
        for (size_t p = 0; p < pixels; p++, output++) {
            const size_t i = p * channels + c;
            switch (qxr_storage(tensor)) {
            case QXR_U8:
                *output = ((const uint8_t *)data)[i] + base;
                break;
            case QXR_I16:
                *output = ((const int16_t *)data)[i];
                break;
            default:
                *output = ((const int32_t *)data)[i];
                break;
            }
        }
}

static int any_null(const void *const *pointers, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (!pointers[i])
            return 1;
    return 0;
}

qxr_status qxr_run(const qxr_model *model, void *arena, size_t arena_size, const uint8_t *const inputs[],
                   int32_t *const outputs[], const qxr_host *host)
{
    const uint32_t threads = CAN_SHARE && host && host->parallel && host->threads ? host->threads : 1u;
    const qxr_header *header;
    qxr_scratch sizes;
    qxr_group group = {0};
    if (!model || !model->bytes || !arena || !inputs || !outputs)
        return QXR_ERROR_ARGUMENT;
    header = qxr_get_header(model);
    if (any_null((const void *const *)inputs, header->input_count) ||
        any_null((const void *const *)outputs, header->output_count))
        return QXR_ERROR_ARGUMENT;
    if ((uintptr_t)arena % 64u)
        return QXR_ERROR_ALIGNMENT;
    sizes = qxr_plan_scratch(model);
    if (arena_size < qxr_scratch_end(model, &sizes, threads))
        return QXR_ERROR_ARENA_SIZE;
    group.model = model;
    group.isa = qxr_model_isa(model);
    group.host = host;
    group.arena = arena;
    group.scratch = group.arena + qxr_round_up(header->arena_size, 64u);
    group.sizes = &sizes;
    for (uint32_t i = 0; i < header->input_count; i++)
        copy_input(group.isa, qxr_get_tensor(model, i), group.arena, inputs[i]);
    report(host, 0, header->input_count);
    run_groups(&group, threads);
    for (uint32_t i = 0; i < header->output_count; i++)
        copy_output(qxr_get_tensor(model, qxr_get_outputs(model)[i]), arena, outputs[i]);
    return QXR_OK;
}
