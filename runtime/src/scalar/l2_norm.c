/* L2 normalisation over channels in portable C: equation 12 of docs/arithmetic.md. */
#include "scalar/scalar.h"

enum { RUN = 64, FRACTION_BITS = 30, LARGEST_SHIFT = 31 };

#define SQUARES_LIMIT ((uint64_t)1 << 62)

static uint64_t magnitude(int32_t value) { return value < 0 ? 0u - (uint64_t)value : (uint64_t)value; }

/* floor(sqrt(value)), a binary digit at a time. */
static uint64_t floor_sqrt(uint64_t value)
{
    uint64_t root = 0;
    for (uint64_t bit = SQUARES_LIMIT; bit; bit >>= 2) {
        if (value >= root + bit) {
            value -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return root;
}

static uint64_t sum_of_squares(const qxr_tensor *in, const uint8_t *data, size_t pixel)
{
    uint64_t sum = 0;
    for (uint32_t c = 0; c < in->extent[0]; c += RUN) {
        const uint32_t count = qxr_min(RUN, in->extent[0] - c);
        int32_t x[RUN];
        qxr_scalar_load_run(in, data, pixel * in->extent[0] + c, count, x);
        for (uint32_t i = 0; i < count; i++)
            sum += magnitude(x[i]) * magnitude(x[i]);
    }
    return sum;
}

void qxr_scalar_l2_norm(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_tensor *in = work->in[0];
    const uint8_t *data = work->arena + in->arena_offset;
    for (uint32_t p = 0; p < tile->pixels; p++, y += tile->channels) {
        const size_t pixel = tile->pixel + p;
        uint64_t squares = sum_of_squares(in, data, pixel), root;
        uint32_t shift = 0;
        while (shift < LARGEST_SHIFT && squares < SQUARES_LIMIT / 4u) {
            squares *= 4u;
            shift++;
        }
        root = floor_sqrt(squares);
        root = root ? root : 1u;
        qxr_scalar_load_run(in, data, pixel * in->extent[0] + tile->channel, tile->channels, y);
        for (uint32_t c = 0; c < tile->channels; c++) {
            const uint64_t scaled = ((magnitude(y[c]) << (shift + FRACTION_BITS)) + root / 2u) / root;
            y[c] = (int32_t)(uint32_t)(y[c] < 0 ? 0u - scaled : scaled);
        }
    }
}
