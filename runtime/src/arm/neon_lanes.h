/* Four 32-bit lanes of a tile, fewer at the end of its channels. */
#ifndef QXR_NEON_LANES_H
#define QXR_NEON_LANES_H

#include <arm_neon.h>

#include "arm/neon.h"

enum { LANES = 4 };

static inline int32x4_t load_lanes(const int32_t *at, uint32_t count)
{
    int32_t few[LANES] = {0};
    if (count >= LANES)
        return vld1q_s32(at);
    for (uint32_t i = 0; i < count; i++)
        few[i] = at[i];
    return vld1q_s32(few);
}

static inline void store_lanes(int32_t *at, uint32_t count, int32x4_t v)
{
    int32_t few[LANES];
    if (count >= LANES) {
        vst1q_s32(at, v);
        return;
    }
    vst1q_s32(few, v);
    for (uint32_t i = 0; i < count; i++)
        at[i] = few[i];
}

/* The two halves of eight bytes or words, widened. */
static inline int32x4_t low_bytes(uint8x8_t v) { return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(v)))); }
static inline int32x4_t high_bytes(uint8x8_t v) { return vreinterpretq_s32_u32(vmovl_high_u16(vmovl_u8(v))); }

#endif
