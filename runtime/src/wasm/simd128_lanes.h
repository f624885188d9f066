/* Four 32-bit lanes of a tile, fewer at the end of its channels. */
#ifndef QXR_SIMD128_LANES_H
#define QXR_SIMD128_LANES_H

#include <wasm_simd128.h>

#include "wasm/simd128.h"

enum { LANES = 4 };

static inline v128_t load_lanes(const int32_t *at, uint32_t count)
{
    int32_t few[LANES] = {0};
    if (count >= LANES)
        return wasm_v128_load(at);
    for (uint32_t i = 0; i < count; i++)
        few[i] = at[i];
    return wasm_v128_load(few);
}

static inline void store_lanes(int32_t *at, uint32_t count, v128_t v)
{
    int32_t few[LANES];
    if (count >= LANES) {
        wasm_v128_store(at, v);
        return;
    }
    wasm_v128_store(few, v);
    for (uint32_t i = 0; i < count; i++)
        at[i] = few[i];
}

#endif
