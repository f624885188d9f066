/* Products of rows and packed weights in 16 bits: what every convolution can use that no better kernel takes. */
#include <wasm_simd128.h>

#include "wasm/simd128.h"
#include "vector/rows.h"

/* A tile of 4 pixels x 8 channels: 8 accumulators, so that weights and inputs stay in the 16 registers of x86, too. */
enum { ROWS = 4, CHANNELS = 8, UNIT = 2 };

typedef struct sums {
    v128_t low[ROWS], high[ROWS];
} sums;

static inline void add_row(sums *s, uint32_t r, const uint8_t *at, v128_t w0, v128_t w1)
{
    const v128_t x = wasm_v128_load32_splat(at);
    s->low[r] = wasm_i32x4_add(s->low[r], wasm_i32x4_dot_i16x8(x, w0));
    s->high[r] = wasm_i32x4_add(s->high[r], wasm_i32x4_dot_i16x8(x, w1));
}

/* `rows` is a constant in each place of use: loops over it are unrolled. */
static inline __attribute__((always_inline)) void multiply(const qxr_product *p, uint32_t rows)
{
    const uint8_t *w = p->weights;
    sums s;
    for (uint32_t r = 0; r < rows; r++) {
        s.low[r] = wasm_v128_load(p->init + r * p->init_stride);
        s.high[r] = wasm_v128_load(p->init + r * p->init_stride + 4);
    }
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const size_t segment = outer * p->outer_step + inner * p->inner_step;
            for (uint32_t step = 0; step < p->steps; step++, w += 2 * sizeof(v128_t)) {
                const v128_t w0 = wasm_v128_load(w), w1 = wasm_v128_load(w + sizeof(v128_t));
                for (uint32_t r = 0; r < rows; r++)
                    add_row(&s, r, p->row[r] + segment + 4u * step, w0, w1);
            }
        }
    for (uint32_t r = 0; r < rows; r++) {
        wasm_v128_store(p->out + r * p->out_stride, s.low[r]);
        wasm_v128_store(p->out + r * p->out_stride + 4, s.high[r]);
    }
}

static void product(const qxr_product *p)
{
    if (p->count == 1u)
        multiply(p, 1);
    else
        multiply(p, ROWS);
}

static const qxr_row_kernel words = {UNIT, 2, ROWS, CHANNELS, product, 0, 0};

/* Groups of fewer channels would leave most of a block of channels empty. */
enum { FEWEST_CHANNELS = 2 };

static int suits(const qxr_conv *conv)
{
    return (qxr_storage(conv->in) != QXR_U8 || conv->input_peak <= 255u) && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, &words);
}

static size_t packed_size(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &words); }
static void pack(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &words, packed); }
static size_t scratch_size(const qxr_conv *conv) { return qxr_rows_scratch(conv, &words); }
static void tile_of(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    qxr_rows_tile(conv, &words, buffers, tile, y);
}

const qxr_conv_kernel qxr_simd128_i16 = {"simd128 i16", suits, packed_size, pack, scratch_size, tile_of, NULL, 0};
