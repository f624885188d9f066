/* Depthwise convolution, tap by tap. */
#include <arm_neon.h>

#include "arm/neon.h"
#include "vector/depthwise.h"

enum { CHANNELS = QXR_DEPTHWISE_CHANNELS };

static inline int16x8_t load8(const uint8_t *at, uint32_t bytes)
{
    /* Bytes fit in 16 bits with or without a sign. */
    return bytes == 1u ? vreinterpretq_s16_u16(vmovl_u8(vld1_u8(at))) : vld1q_s16((const int16_t *)(const void *)at);
}

/* `bytes` is a constant in each use: a loop of its own for each width. */
static inline void multiply(const qxr_depthwise_product *p, uint32_t bytes)
{
    const qxr_depthwise_product k = *p; /* stays in registers whatever is stored */
    const int16_t *end = k.weights + (size_t)k.steps * CHANNELS;
    qxr_window_walk windows = k.windows;
    int32_t *y = k.out;
    for (uint32_t q = 0; q < k.pixels; q++, y += k.out_stride) {
        const uint8_t *at = qxr_next_window(&windows);
        const size_t *offset = k.offset;
        int32x4_t low = vld1q_s32(k.sums), high = vld1q_s32(k.sums + 4);
        for (const int16_t *weights = k.weights; weights != end; weights += CHANNELS) {
            const int16x8_t x = load8(at + *offset++, bytes), w = vld1q_s16(weights);
            low = vmlal_s16(low, vget_low_s16(x), vget_low_s16(w));
            high = vmlal_high_s16(high, x, w);
        }
        vst1q_s32(y, low);
        vst1q_s32(y + 4, high);
    }
}

static void product(const qxr_depthwise_product *p)
{
    if (p->bytes == 1u)
        multiply(p, 1);
    else
        multiply(p, 2);
}

static const qxr_depthwise_kernel kernel = {1, product};

static size_t packed_size(const qxr_conv *conv) { return qxr_depthwise_packed_size(conv, &kernel); }
static void pack(const qxr_conv *conv, uint8_t *packed) { qxr_depthwise_pack(conv, &kernel, packed); }
static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_depthwise_tile(conv, &kernel, buffers, tile, y);
}

const qxr_conv_kernel qxr_neon_depthwise = {
    "neon depthwise", qxr_depthwise_suits, packed_size, pack, qxr_depthwise_scratch, tile_of,
    NULL, 0,
};
