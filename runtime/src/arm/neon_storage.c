/* Tiles between the arena and the slots. */
#include "arm/neon_lanes.h"
#include "vector/storage.h"

enum { AT_ONCE = 8 };

static size_t load_vectors(const qxr_tensor *tensor, const uint8_t *at, size_t count, int32_t *x)
{
    const int32x4_t base = vdupq_n_s32(qxr_base(tensor));
    size_t i = 0;
    if (qxr_storage(tensor) == QXR_U8) {
        for (; i + AT_ONCE <= count; i += AT_ONCE) {
            const uint8x8_t bytes = vld1_u8(at + i);
            vst1q_s32(x + i, vaddq_s32(low_bytes(bytes), base));
            vst1q_s32(x + i + LANES, vaddq_s32(high_bytes(bytes), base));
        }
    } else if (qxr_storage(tensor) == QXR_I16) {
        for (; i + AT_ONCE <= count; i += AT_ONCE) {
            const int16x8_t words = vld1q_s16((const int16_t *)(const void *)at + i);
            vst1q_s32(x + i, vmovl_s16(vget_low_s16(words)));
            vst1q_s32(x + i + LANES, vmovl_high_s16(words));
        }
    }
    return i;
}

void qxr_neon_load(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, int32_t *x)
{
    qxr_load_tile(tensor, data, tile, load_vectors, x);
}

/* The low half of each lane, whatever the other holds: what a store in portable C keeps. */
static inline int16x8_t low_halves(const int32_t *y, int32x4_t base)
{
    return vmovn_high_s32(vmovn_s32(vsubq_s32(vld1q_s32(y), base)), vsubq_s32(vld1q_s32(y + LANES), base));
}

static size_t store_vectors(const qxr_tensor *tensor, uint8_t *at, size_t count, const int32_t *y)
{
    const int32x4_t base = vdupq_n_s32(qxr_base(tensor)), zero = vdupq_n_s32(0);
    size_t i = 0;
    if (qxr_storage(tensor) == QXR_U8) {
        for (; i + 2u * AT_ONCE <= count; i += 2u * AT_ONCE) {
            const int8x8_t low = vmovn_s16(low_halves(y + i, base));
            vst1q_u8(at + i, vreinterpretq_u8_s8(vmovn_high_s16(low, low_halves(y + i + AT_ONCE, base))));
        }
    } else if (qxr_storage(tensor) == QXR_I16) {
        for (; i + AT_ONCE <= count; i += AT_ONCE)
            vst1q_s16((int16_t *)(void *)at + i, low_halves(y + i, zero));
    }
    return i;
}

void qxr_neon_store(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, const int32_t *y)
{
    qxr_store_tile(tensor, data, tile, store_vectors, y);
}
