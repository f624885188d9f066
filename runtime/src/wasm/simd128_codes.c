/* 16 codes at a time to 2, 4 or 8 bytes. */
#include "wasm/simd128_codes.h"

enum { VECTOR = 16 };

/* Lanes of 8, 4 or 2 codes each: a code moves down by what stands between it and its place. */
static inline uint8_t *pack_vector(const qxr_code_form *form, v128_t codes, uint8_t *to)
{
    const uint32_t gap = 8u - form->bits;
    if (form->per == 8u) {
        const uint16_t bits = (uint16_t)wasm_i8x16_bitmask(wasm_i8x16_gt(codes, wasm_i8x16_splat(0)));
        __builtin_memcpy(to, &bits, sizeof bits);
        return to + 2;
    }
    if (form->per == 4u) {
        codes = wasm_v128_or(codes, wasm_u32x4_shr(codes, gap));
        codes = wasm_v128_or(codes, wasm_u32x4_shr(codes, 2u * gap));
        codes = wasm_i8x16_shuffle(codes, codes, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
        wasm_v128_store32_lane(to, codes, 0);
        return to + 4;
    }
    codes = wasm_v128_and(wasm_v128_or(codes, wasm_u16x8_shr(codes, gap)), wasm_i16x8_splat(0xFF));
    wasm_v128_store64_lane(to, wasm_u8x16_narrow_i16x8(codes, codes), 0);
    return to + 8;
}

size_t qxr_simd128_pack_codes(const qxr_code_form *form, const uint8_t *codes, size_t count, uint8_t *to)
{
    size_t done = 0;
    for (; done + VECTOR <= count; done += VECTOR)
        to = pack_vector(form, wasm_v128_load(codes + done), to);
    return done;
}
