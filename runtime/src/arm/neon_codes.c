/* 16 codes at a time to 2, 4 or 8 bytes. */
#include "arm/neon_codes.h"

enum { VECTOR = 16 };

/* Where each of 16 codes belongs within its byte. */
static inline int8x16_t places(const qxr_code_form *form)
{
    static const int8_t numbers[VECTOR] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int8x16_t within = vandq_s8(vld1q_s8(numbers), vdupq_n_s8((int8_t)(form->per - 1u)));
    return vmulq_s8(within, vdupq_n_s8((int8_t)form->bits));
}

/* Once in place, neighbours are added until a byte has its codes. */
static inline uint8_t *pack_vector(uint32_t per, uint8x16_t codes, int8x16_t shifts, uint8_t *to)
{
    codes = vshlq_u8(codes, shifts);
    codes = vpaddq_u8(codes, codes);
    if (per == 2u) {
        vst1_u8(to, vget_low_u8(codes));
        return to + 8;
    }
    codes = vpaddq_u8(codes, codes);
    if (per == 4u) {
        const uint32_t four = vgetq_lane_u32(vreinterpretq_u32_u8(codes), 0);
        __builtin_memcpy(to, &four, sizeof four);
        return to + 4;
    }
    codes = vpaddq_u8(codes, codes);
    const uint16_t two = vgetq_lane_u16(vreinterpretq_u16_u8(codes), 0);
    __builtin_memcpy(to, &two, sizeof two);
    return to + 2;
}

size_t qxr_neon_pack_codes(const qxr_code_form *form, const uint8_t *codes, size_t count, uint8_t *to)
{
    const int8x16_t shifts = places(form);
    size_t done = 0;
    for (; done + VECTOR <= count; done += VECTOR)
        to = pack_vector(form->per, vld1q_u8(codes + done), shifts, to);
    return done;
}
