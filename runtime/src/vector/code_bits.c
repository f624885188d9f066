/* Weights of one-bit codes whose products are counted. */
#include "vector/codes.h"

static const qxr_code_form form = {8, 1, 1, sizeof(qxr_bits_head)};

int qxr_code_bits_suit(const qxr_conv *conv)
{
    const int32_t *book = conv->weights.codebook;
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= 1u && conv->weights.entries == 2u &&
           book[0] == -book[1] && qxr_codes_suit(conv, &form);
}

size_t qxr_code_bits_packed_size(const qxr_conv *conv) { return qxr_codes_packed_size(conv, &form); }

void qxr_code_bits_pack(const qxr_conv *conv, uint8_t *packed) { qxr_code_bits_pack_as(conv, &form, packed); }

void qxr_code_bits_pack_as(const qxr_conv *conv, const qxr_code_form *as, uint8_t *packed)
{
    const int32_t value = conv->weights.codebook[1];
    const uint32_t steps = qxr_code_steps(conv, as);
    qxr_codes_pack(conv, as, 1, packed);
    ((qxr_bits_head *)(void *)packed)->value = value;
    for (uint32_t o = 0; o < conv->out->extent[0]; o++) {
        const uint8_t *weights = qxr_code_weights(conv, as, packed, o);
        int32_t *init = qxr_code_init(conv, as, packed, o);
        uint32_t count = 0;
        for (uint32_t k = 0; k < steps; k++)
            count += (uint32_t)__builtin_popcount(weights[qxr_code_place(conv, as, k)]);
        *init = qxr_wrap_add(*init, qxr_wrap_mul(value, (int32_t)count));
    }
}

size_t qxr_code_bits_scratch(const qxr_conv *conv) { return qxr_codes_scratch(conv, &form); }

void qxr_code_bits_tile(const qxr_conv *conv, const qxr_code_kernel *kernel, const qxr_conv_buffers *buffers,
                        const qxr_tile *tile, int32_t *y)
{
    qxr_codes_tile(conv, &form, kernel, buffers, tile, y);
}
