/* Convolutions of bytes with the matrix products of ARMv8.6 (i8mm): two pixels with two channels, eight deep, in one
 * instruction, exact at any width; unsigned inputs with signed weights. */
#include <arm_neon.h>

#include "arm/neon.h"
#include "vector/rows.h"

/* Loops are unrolled, so that sums stay in registers: `pairs` is a constant in each place of use. */
#define INLINE static inline __attribute__((always_inline))
#define EACH_PAIR(r) _Pragma("GCC unroll 4") for (uint32_t r = 0; r < pairs; r++)
#define EACH_TWO(c) _Pragma("GCC unroll 4") for (uint32_t c = 0; c < PAIRS; c++)

/* 8 pixels x 8 channels: 16 accumulators, each of 2 x 2; 4 vectors of weights and an input beside them. */
enum { PAIRS = 4, ROWS = 2 * PAIRS, BLOCK = 8, UNIT = 8, STEP_BYTES = BLOCK * UNIT };

typedef struct sums {
    int32x4_t s[PAIRS][PAIRS]; /* [two pixels][two channels] */
} sums;

INLINE int32x4_t low_pair(int32x4_t a, int32x4_t b)
{
    return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

INLINE int32x4_t high_pair(int32x4_t a, int32x4_t b)
{
    return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

/* Four channels of two pixels as two accumulators, and back. */
INLINE void read_half(const int32_t *at, size_t stride, int32x4_t *s)
{
    const int32x4_t a = vld1q_s32(at), b = vld1q_s32(at + stride);
    s[0] = low_pair(a, b);
    s[1] = high_pair(a, b);
}

INLINE void write_half(int32_t *at, size_t stride, const int32x4_t *s)
{
    vst1q_s32(at, low_pair(s[0], s[1]));
    vst1q_s32(at + stride, high_pair(s[0], s[1]));
}

INLINE void add_pair(int32x4_t *s, uint8x16_t x, const uint8_t *w)
{
    EACH_TWO(c)
        s[c] = vusmmlaq_s32(s[c], x, vreinterpretq_s8_u8(vld1q_u8(w + 16u * c)));
}

/* One segment, two steps at a time; returns the weights behind it. */
INLINE const uint8_t *add_segment(sums *s, uint32_t pairs, const qxr_product *p, size_t segment, const uint8_t *w)
{
    uint32_t step = 0;
    for (; step + 2u <= p->steps; step += 2u, w += 2 * STEP_BYTES)
        EACH_PAIR(r) {
            const size_t at = segment + (size_t)step * UNIT;
            const uint64x2_t a = vreinterpretq_u64_u8(vld1q_u8(p->row[2u * r] + at));
            const uint64x2_t b = vreinterpretq_u64_u8(vld1q_u8(p->row[2u * r + 1u] + at));
            add_pair(s->s[r], vreinterpretq_u8_u64(vzip1q_u64(a, b)), w);
            add_pair(s->s[r], vreinterpretq_u8_u64(vzip2q_u64(a, b)), w + STEP_BYTES);
        }
    if (step == p->steps)
        return w;
    EACH_PAIR(r) {
        const size_t at = segment + (size_t)step * UNIT;
        add_pair(s->s[r], vcombine_u8(vld1_u8(p->row[2u * r] + at), vld1_u8(p->row[2u * r + 1u] + at)), w);
    }
    return w + STEP_BYTES;
}

INLINE void multiply(const qxr_product *p, uint32_t pairs)
{
    const uint8_t *w = p->weights;
    sums s;
    EACH_PAIR(r) {
        read_half(p->init + 2u * r * p->init_stride, p->init_stride, s.s[r]);
        read_half(p->init + 2u * r * p->init_stride + 4, p->init_stride, s.s[r] + 2);
    }
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++)
            w = add_segment(&s, pairs, p, outer * p->outer_step + inner * p->inner_step, w);
    EACH_PAIR(r) {
        write_half(p->out + 2u * r * p->out_stride, p->out_stride, s.s[r]);
        write_half(p->out + 2u * r * p->out_stride + 4, p->out_stride, s.s[r] + 2);
    }
}

/* A single pixel is one of two, the other a copy, which `out` has room for. */
static void product(const qxr_product *p)
{
    if (p->count <= 2u)
        multiply(p, 1);
    else
        multiply(p, PAIRS);
}

static const qxr_row_kernel rows = {UNIT, 1, ROWS, BLOCK, product, 0, 0};

/* Groups of fewer channels would leave most of a block of channels empty. */
enum { FEWEST_CHANNELS = 3 };

static int suits(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= 255u && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, &rows);
}

static size_t packed_size(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &rows); }
static void pack(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &rows, packed); }
static size_t scratch_size(const qxr_conv *conv) { return qxr_rows_scratch(conv, &rows); }
static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_rows_tile(conv, &rows, buffers, tile, y);
}

static const qxr_conv_kernel bytes = {"i8mm", suits, packed_size, pack, scratch_size, tile_of, NULL, 0};
static const qxr_conv_kernel *const conv_kernels[] = {&qxr_neon_bits, &bytes, NULL};

const qxr_isa qxr_isa_i8mm = {
    .name = "i8mm",
    .parent = &qxr_isa_dotprod,
    .available = qxr_cpu_has_i8mm,
    .conv = conv_kernels,
    .load = qxr_neon_load,
    .store = qxr_neon_store,
    .tile_elements = 2048,
    .tile_channels = 512,
    .block_channels = 128,
};
