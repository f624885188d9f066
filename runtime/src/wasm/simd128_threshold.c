/* Thresholds: a comparison a step where the steps are few; many steps are searched in portable C. */
#include "wasm/simd128_lanes.h"

enum {
    MOST_COMPARED = 64, /* steps; above, the search costs less */
    HELD_STEPS = 3      /* steps whose thresholds stay in registers */
};

/* Four channels: what turns an input into a level. */
typedef struct column {
    const int32_t *thresholds; /* [count][stride] */
    size_t stride;
    v128_t held[HELD_STEPS];
    v128_t sign;               /* -1 where the channel's sign is -1, else 0 */
    v128_t first, step, table; /* table: the levels, where they are at most four */
    const qxr_steps *steps;
    uint32_t lanes;
} column;

static inline v128_t thresholds_at(const column *k, uint32_t i)
{
    const int32_t *at = k->thresholds + i * k->stride;
    return k->steps->stride ? load_lanes(at, k->lanes) : wasm_i32x4_splat(*at);
}

static column make_column(const qxr_steps *s, uint32_t first_channel, uint32_t c, uint32_t lanes)
{
    int32_t sign[LANES] = {0};
    column k;
    k.steps = s;
    k.lanes = lanes;
    k.thresholds = s->thresholds + (s->stride ? c : 0u);
    k.stride = s->stride ? s->stride : 1u;
    for (uint32_t i = 0; i < lanes; i++)
        sign[i] = qxr_is_negative(s, first_channel + c + i) ? -1 : 0;
    k.sign = wasm_v128_load(sign);
    k.first = wasm_i32x4_splat(s->first);
    k.step = wasm_i32x4_splat(s->step);
    k.table = s->levels ? load_lanes(s->levels, s->count + 1u) : wasm_i32x4_splat(0);
    for (uint32_t i = 0; i < HELD_STEPS; i++)
        k.held[i] = i < s->count ? thresholds_at(&k, i) : wasm_i32x4_splat(0);
    return k;
}

/* A table of up to four levels is looked up byte by byte: byte b of level n is byte 4 n + b of the table. */
static inline v128_t level_of(const column *k, v128_t code)
{
    const int32_t *levels = k->steps->levels;
    if (!levels)
        return wasm_i32x4_add(k->first, wasm_i32x4_mul(code, k->step));
    if (k->steps->count < LANES) {
        const v128_t bytes = wasm_i32x4_mul(code, wasm_i32x4_splat(0x04040404));
        return wasm_i8x16_swizzle(k->table, wasm_i32x4_add(bytes, wasm_i32x4_splat(0x03020100)));
    }
    return wasm_i32x4_make(levels[wasm_i32x4_extract_lane(code, 0)], levels[wasm_i32x4_extract_lane(code, 1)],
                           levels[wasm_i32x4_extract_lane(code, 2)], levels[wasm_i32x4_extract_lane(code, 3)]);
}

/* code = steps - #{i : t_i > x}. `count` and `lanes` are constants in most places of use, with a loop of their own. */
static inline __attribute__((always_inline)) void compare_all(const column *k, uint32_t count, uint32_t lanes,
                                                              uint32_t pixels, size_t pitch, const int32_t *x,
                                                              int32_t *y)
{
    const v128_t low = k->steps->levels ? wasm_i32x4_splat(k->steps->levels[0]) : k->first;
    const v128_t high = k->steps->levels ? wasm_i32x4_splat(k->steps->levels[1]) : wasm_i32x4_add(k->first, k->step);
    for (uint32_t p = 0; p < pixels; p++, x += pitch, y += pitch) {
        const v128_t v = wasm_i32x4_sub(wasm_v128_xor(load_lanes(x, lanes), k->sign), k->sign);
        v128_t code = wasm_i32x4_splat((int32_t)count);
        if (count == 1u) {
            store_lanes(y, lanes, wasm_v128_bitselect(low, high, wasm_i32x4_gt(k->held[0], v)));
            continue;
        }
        for (uint32_t i = 0; i < count; i++)
            code = wasm_i32x4_add(code, wasm_i32x4_gt(count <= HELD_STEPS ? k->held[i] : thresholds_at(k, i), v));
        store_lanes(y, lanes, level_of(k, code));
    }
}

void qxr_simd128_threshold(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_steps s = qxr_read_steps(work, tile);
    if (s.count > MOST_COMPARED || s.count == 0u) {
        qxr_scalar_threshold(work, tile, y);
        return;
    }
    for (uint32_t c = 0; c < tile->channels; c += LANES) {
        const column k = make_column(&s, tile->channel, c, qxr_min(LANES, tile->channels - c));
        const int32_t *x = work->x[0] + c;
        if (s.count == 1u && k.lanes == LANES)
            compare_all(&k, 1, LANES, tile->pixels, tile->channels, x, y + c);
        else if (s.count == 3u && k.lanes == LANES)
            compare_all(&k, 3, LANES, tile->pixels, tile->channels, x, y + c);
        else
            compare_all(&k, s.count, k.lanes, tile->pixels, tile->channels, x, y + c);
    }
}
