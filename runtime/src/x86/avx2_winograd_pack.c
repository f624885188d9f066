/* Weights of the Winograd convolution. */
#include "x86/avx2_winograd.h"

#include <string.h>

enum { RUN = 64 /* channels at a time */ };

/* Taps that are `stride` apart, by threes as far as they go. */
static void plan_groups(const qxr_op *op, qxr_winograd_layout *l)
{
    const uint32_t stride = op->stride[1], window = op->window[1];
    for (uint32_t phase = 0; phase < stride && phase < window; phase++)
        for (uint32_t tap = phase; tap < window; tap += 3u * stride) {
            qxr_winograd_group *g = &l->group[l->groups++];
            g->tap = tap;
            g->taps = qxr_min(3u, (window - tap - 1u) / stride + 1u);
        }
}

/* Elements of a block by kinds. Inputs are stored four channels at a time: what a store writes beyond a group's last
 * channel may not be another kind's. */
static void plan_block(const qxr_conv *conv, qxr_winograd_layout *l)
{
    const uint32_t channels = conv->in->extent[0], beyond = channels % 4u ? 4u - channels % 4u : 0u;
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        uint32_t next = l->elements;
        l->first[kind] = next;
        for (uint32_t i = 0; i < l->groups; i++)
            if (qxr_winograd_has(&l->group[i], kind)) {
                l->group[i].at[kind] = next;
                next += channels;
            }
        l->steps[kind] = (next - l->elements + 1u) / 2u;
        l->all_steps += l->steps[kind] * conv->op->window[0];
        if (next != l->elements)
            l->elements = (uint32_t)qxr_round_up(next + beyond, 2u);
    }
}

qxr_winograd_layout qxr_winograd_plan(const qxr_conv *conv)
{
    qxr_winograd_layout l;
    memset(&l, 0, sizeof l);
    plan_groups(conv->op, &l);
    plan_block(conv, &l);
    l.blocks = (conv->out->extent[2] - 1u) / OUTPUTS + 1u;
    l.planes = conv->weight_peak <= LARGEST_WEIGHT ? 1u : 2u;
    l.pitch = (size_t)l.blocks * l.elements * sizeof(int16_t);
    l.weights = qxr_round_up(l.all_steps * sizeof(int32_t), 64u);
    l.plane_bytes = (size_t)l.all_steps * CHANNELS * 2u * sizeof(int16_t);
    l.bytes = l.weights + l.plane_bytes * l.planes * ((conv->out->extent[0] - 1u) / CHANNELS + 1u);
    return l;
}

/* 24 G g of F(4, 3); a tap that is not there is zero. One tap by itself: 24 g for each result. */
static int32_t transformed(uint32_t kind, uint32_t taps, int32_t a, int32_t b, int32_t c)
{
    if (taps == 1u)
        return FACTOR * a;
    switch (kind) {
    case A0:
        return 6 * a;
    case M1:
        return -4 * (a + b + c);
    case M2:
        return -4 * (a - b + c);
    case M3:
        return a + 2 * b + 4 * c;
    case M4:
        return a - 2 * b + 4 * c;
    default:
        return FACTOR * c;
    }
}

/* The signed digit of one plane. */
static int32_t digit(const qxr_winograd_layout *l, int32_t weight, uint32_t plane)
{
    const int32_t half = 1 << (DIGIT_BITS - 1), low = ((weight + half) & (2 * half - 1)) - half;
    if (l->planes == 1u)
        return weight;
    return plane ? (weight - low) >> DIGIT_BITS : low;
}

/* Some channels of one group, row `v` of the window, into lane `lane` of `to`, the weights of 16 channels. */
static void pack_run(const qxr_winograd_layout *l, const qxr_winograd_group *g, uint32_t v, uint32_t window,
                     const int32_t values[3][RUN], uint32_t channel, uint32_t count, uint8_t *to)
{
    size_t before = 0; /* steps of the kinds before */
    for (uint32_t kind = 0; kind < KINDS; before += l->steps[kind++] * window) {
        const uint32_t first = g->at[kind] - l->first[kind] + channel;
        if (!qxr_winograd_has(g, kind))
            continue;
        for (uint32_t i = 0; i < count; i++) {
            const size_t step = before + v * l->steps[kind] + (first + i) / 2u;
            uint8_t *at = to + step * CHANNELS * 2u * sizeof(int16_t) + (first + i) % 2u * sizeof(int16_t);
            for (uint32_t p = 0; p < l->planes; p++, at += l->plane_bytes) {
                const int16_t weight = (int16_t)transformed(kind, g->taps, digit(l, values[0][i], p),
                                                            digit(l, values[1][i], p), digit(l, values[2][i], p));
                memcpy(at, &weight, sizeof weight);
            }
        }
    }
}

static void pack_channel(const qxr_conv *conv, const qxr_winograd_layout *l, uint32_t o, uint8_t *to)
{
    const uint32_t channels = conv->in->extent[0], rows = conv->op->window[0];
    for (uint32_t v = 0; v < rows; v++)
        for (uint32_t i = 0; i < l->groups; i++)
            for (uint32_t c = 0; c < channels; c += RUN) {
                const uint32_t count = qxr_min(RUN, channels - c);
                int32_t values[3][RUN] = {{0}};
                for (uint32_t k = 0; k < l->group[i].taps; k++) {
                    const uint32_t tap = l->group[i].tap + k * conv->op->stride[1];
                    qxr_weight_values(&conv->weights, o, (uint64_t)(v * conv->op->window[1] + tap) * channels + c,
                                      count, values[k]);
                }
                pack_run(l, &l->group[i], v, rows, (const int32_t(*)[RUN])values, c, count, to);
            }
}

void qxr_winograd_pack(const qxr_conv *conv, uint8_t *packed)
{
    const qxr_winograd_layout l = qxr_winograd_plan(conv);
    int32_t *offset = (int32_t *)(void *)packed;
    memset(packed, 0, l.bytes);
    for (uint32_t kind = 0; kind < KINDS; kind++)
        for (uint32_t v = 0; v < conv->op->window[0]; v++)
            for (uint32_t s = 0; s < l.steps[kind]; s++)
                *offset++ = (int32_t)(v * conv->op->dilation[0] * l.pitch + (l.first[kind] + 2u * s) * sizeof(int16_t));
    for (uint32_t o = 0; o < conv->out->extent[0]; o++)
        pack_channel(conv, &l, o, packed + l.weights + o / CHANNELS * l.plane_bytes * l.planes +
                                      o % CHANNELS * 2u * sizeof(int16_t));
}
