/* Convolutions of bytes with the dot product instructions of ARMv8.2: four products to a 32-bit sum, exact at any width.
 *
 * The instruction takes bytes of one kind, and weights are signed: so inputs above 127 are taken as x - 128, one exclusive or,
 * and 128 times the sum of the weights is added before. */
#include <arm_neon.h>

#include "arm/neon.h"
#include "vector/rows.h"

/* Loops over rows are unrolled, so that sums stay in registers: `rows` and `flip` are constants in each place of use. */
#define INLINE static inline __attribute__((always_inline))
#define EACH_ROW(r) _Pragma("GCC unroll 8") for (uint32_t r = 0; r < rows; r++)

/* 8 pixels x 8 channels: 16 accumulators hide the latency of the instruction; 8 weights and an input beside them. */
enum { ROWS = 8, BLOCK = 8, UNIT = 4, AT_ONCE = 4, STEP_BYTES = BLOCK * UNIT, SIGN = 128 };

typedef struct sums {
    int32x4_t low[ROWS], high[ROWS];
} sums;

INLINE int8x16_t weights_at(const uint8_t *w) { return vreinterpretq_s8_u8(vld1q_u8(w)); }

/* Four steps of one row. */
INLINE int8x16_t inputs_at(const uint8_t *at, uint8x16_t flip) { return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(at), flip)); }

/* One segment; returns the weights behind it. Of the last four steps those behind it are loaded, but not multiplied. */
INLINE const uint8_t *add_segment(sums *s, uint32_t rows, uint8x16_t flip, const qxr_product *p, size_t segment,
                                  const uint8_t *w)
{
    const uint32_t rest = p->steps % AT_ONCE;
    uint32_t step = 0;
    for (; step + AT_ONCE <= p->steps; step += AT_ONCE, w += AT_ONCE * STEP_BYTES) {
        const int8x16_t a0 = weights_at(w), b0 = weights_at(w + 16), a1 = weights_at(w + 32), b1 = weights_at(w + 48);
        const int8x16_t a2 = weights_at(w + 64), b2 = weights_at(w + 80), a3 = weights_at(w + 96), b3 = weights_at(w + 112);
        EACH_ROW(r) {
            const int8x16_t x = inputs_at(p->row[r] + segment + (size_t)step * UNIT, flip);
            s->low[r] = vdotq_laneq_s32(s->low[r], a0, x, 0);
            s->high[r] = vdotq_laneq_s32(s->high[r], b0, x, 0);
            s->low[r] = vdotq_laneq_s32(s->low[r], a1, x, 1);
            s->high[r] = vdotq_laneq_s32(s->high[r], b1, x, 1);
            s->low[r] = vdotq_laneq_s32(s->low[r], a2, x, 2);
            s->high[r] = vdotq_laneq_s32(s->high[r], b2, x, 2);
            s->low[r] = vdotq_laneq_s32(s->low[r], a3, x, 3);
            s->high[r] = vdotq_laneq_s32(s->high[r], b3, x, 3);
        }
    }
    if (!rest)
        return w;
    EACH_ROW(r) {
        const int8x16_t x = inputs_at(p->row[r] + segment + (size_t)step * UNIT, flip);
        s->low[r] = vdotq_laneq_s32(s->low[r], weights_at(w), x, 0);
        s->high[r] = vdotq_laneq_s32(s->high[r], weights_at(w + 16), x, 0);
        if (rest > 1u) {
            s->low[r] = vdotq_laneq_s32(s->low[r], weights_at(w + 32), x, 1);
            s->high[r] = vdotq_laneq_s32(s->high[r], weights_at(w + 48), x, 1);
        }
        if (rest > 2u) {
            s->low[r] = vdotq_laneq_s32(s->low[r], weights_at(w + 64), x, 2);
            s->high[r] = vdotq_laneq_s32(s->high[r], weights_at(w + 80), x, 2);
        }
    }
    return w + (size_t)rest * STEP_BYTES;
}

INLINE void multiply(const qxr_product *p, uint32_t rows, uint8_t flip)
{
    const uint8_t *w = p->weights;
    sums s;
    EACH_ROW(r) {
        s.low[r] = vld1q_s32(p->init + r * p->init_stride);
        s.high[r] = vld1q_s32(p->init + r * p->init_stride + 4);
    }
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++)
            w = add_segment(&s, rows, vdupq_n_u8(flip), p, outer * p->outer_step + inner * p->inner_step, w);
    EACH_ROW(r) {
        vst1q_s32(p->out + r * p->out_stride, s.low[r]);
        vst1q_s32(p->out + r * p->out_stride + 4, s.high[r]);
    }
}

static void product_s8(const qxr_product *p)
{
    if (p->count == 1u)
        multiply(p, 1, 0);
    else
        multiply(p, ROWS, 0);
}

static void product_u8(const qxr_product *p)
{
    if (p->count == 1u)
        multiply(p, 1, SIGN);
    else
        multiply(p, ROWS, SIGN);
}

static const qxr_row_kernel s8_rows = {UNIT, 1, ROWS, BLOCK, product_s8, 0, 0}, u8_rows = {UNIT, 1, ROWS, BLOCK, product_u8, 0, 0};

/* Groups of fewer channels would leave most of a block of channels empty. */
enum { FEWEST_CHANNELS = 3 };

static const qxr_row_kernel *rows_of(const qxr_conv *conv) { return conv->input_peak < SIGN ? &s8_rows : &u8_rows; }

static int suits(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= 255u && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, rows_of(conv));
}

static size_t packed_size(const qxr_conv *conv) { return qxr_rows_packed_size(conv, rows_of(conv)); }

/* What inputs lack joins their base, by which `qxr_rows_pack` multiplies the sums of the weights. */
static void pack(const qxr_conv *conv, uint8_t *packed)
{
    qxr_conv flipped = *conv;
    if (rows_of(conv) == &u8_rows)
        flipped.base += SIGN;
    qxr_rows_pack(&flipped, rows_of(conv), packed);
}

static size_t scratch_size(const qxr_conv *conv) { return qxr_rows_scratch(conv, rows_of(conv)); }
static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_rows_tile(conv, rows_of(conv), buffers, tile, y);
}

static const qxr_conv_kernel bytes = {"dotprod", suits, packed_size, pack, scratch_size, tile_of, NULL, 0};
static const qxr_conv_kernel *const conv_kernels[] = {&qxr_neon_bits, &bytes, NULL};

const qxr_isa qxr_isa_dotprod = {
    .name = "dotprod",
    .parent = &qxr_isa_neon,
    .available = qxr_cpu_has_dotprod,
    .conv = conv_kernels,
    .load = qxr_neon_load,
    .store = qxr_neon_store,
    .tile_elements = 2048,
    .tile_channels = 512,
    .block_channels = 128,
};
