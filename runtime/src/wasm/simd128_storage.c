/* Tiles between the arena and the slots. */
#include "wasm/simd128_lanes.h"
#include "vector/storage.h"

enum { AT_ONCE = 8 };

static size_t load_vectors(const qxr_tensor *tensor, const uint8_t *at, size_t count, int32_t *x)
{
    const v128_t base = wasm_i32x4_splat(qxr_base(tensor));
    size_t i = 0;
    if (qxr_storage(tensor) == QXR_U8) {
        for (; i + AT_ONCE <= count; i += AT_ONCE) {
            const v128_t words = wasm_u16x8_load8x8(at + i);
            wasm_v128_store(x + i, wasm_i32x4_add(wasm_u32x4_extend_low_u16x8(words), base));
            wasm_v128_store(x + i + LANES, wasm_i32x4_add(wasm_u32x4_extend_high_u16x8(words), base));
        }
    } else if (qxr_storage(tensor) == QXR_I16) {
        for (; i + AT_ONCE <= count; i += AT_ONCE) {
            const v128_t words = wasm_v128_load(at + 2u * i);
            wasm_v128_store(x + i, wasm_i32x4_extend_low_i16x8(words));
            wasm_v128_store(x + i + LANES, wasm_i32x4_extend_high_i16x8(words));
        }
    }
    return i;
}

void qxr_simd128_load(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, int32_t *x)
{
    qxr_load_tile(tensor, data, tile, load_vectors, x);
}

/* The low half of each lane, whatever the other holds: what a store in portable C keeps. */
static inline v128_t low_halves(v128_t a, v128_t b)
{
    return wasm_i16x8_shuffle(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
}

static inline v128_t two_vectors(const int32_t *y, v128_t base)
{
    return low_halves(wasm_i32x4_sub(wasm_v128_load(y), base), wasm_i32x4_sub(wasm_v128_load(y + LANES), base));
}

static size_t store_vectors(const qxr_tensor *tensor, uint8_t *at, size_t count, const int32_t *y)
{
    const v128_t base = wasm_i32x4_splat(qxr_base(tensor)), low = wasm_i16x8_splat(0xFF);
    size_t i = 0;
    if (qxr_storage(tensor) == QXR_U8) {
        for (; i + 2u * AT_ONCE <= count; i += 2u * AT_ONCE) {
            const v128_t a = wasm_v128_and(two_vectors(y + i, base), low);
            const v128_t b = wasm_v128_and(two_vectors(y + i + AT_ONCE, base), low);
            wasm_v128_store(at + i, wasm_u8x16_narrow_i16x8(a, b));
        }
    } else if (qxr_storage(tensor) == QXR_I16) {
        for (; i + AT_ONCE <= count; i += AT_ONCE)
            wasm_v128_store(at + 2u * i, low_halves(wasm_v128_load(y + i), wasm_v128_load(y + i + LANES)));
    }
    return i;
}

void qxr_simd128_store(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, const int32_t *y)
{
    qxr_store_tile(tensor, data, tile, store_vectors, y);
}
