/* Weights of codes whose products are looked up, and the table. */
#include "vector/codes.h"

enum { FEWEST_STEPS = 3 /* sums in 8 bits; with fewer, the products in 16 bits cost less */ };

static uint32_t bits_of(uint32_t peak)
{
    uint32_t bits = 1;
    while (peak >> bits)
        bits++;
    return bits;
}

/* How the codes of a layer are packed; per = 0: not at all. */
static qxr_code_form form_of(const qxr_conv *conv)
{
    qxr_code_form f = {0, bits_of(conv->input_peak), 1, 0};
    if (conv->weights.entries >= 1u && conv->weights.entries <= 2u && 4u * f.bits <= 8u)
        f.per = 4;
    else if (conv->weights.entries >= 1u && conv->weights.entries <= 4u && 2u * f.bits <= 8u)
        f.per = 2;
    f.head_bytes = sizeof(qxr_table_head) + ((size_t)QXR_TABLE_ROW << (f.per * f.bits));
    return f;
}

static uint32_t byte_steps(const qxr_conv *conv, uint32_t per)
{
    const uint64_t peak = (uint64_t)per * qxr_max(conv->input_peak, 1u) * qxr_max(conv->weight_peak, 1u);
    return peak <= 127u ? 127u / (uint32_t)peak : 0u;
}

int qxr_code_table_suits(const qxr_conv *conv)
{
    qxr_code_form form;
    if (qxr_storage(conv->in) != QXR_U8 || conv->input_peak > 15u)
        return 0;
    form = form_of(conv);
    return form.per && byte_steps(conv, form.per) >= FEWEST_STEPS && qxr_codes_suit(conv, &form);
}

size_t qxr_code_table_packed_size(const qxr_conv *conv)
{
    const qxr_code_form form = form_of(conv);
    return qxr_codes_packed_size(conv, &form);
}

/* Products of a byte of codes with the weights of a place. Places that no weights have are never looked up. */
static int32_t sum_of(const qxr_conv *conv, const qxr_code_form *form, uint32_t byte, uint32_t place)
{
    const uint32_t weight_bits = 4u / form->per;
    int32_t sum = 0;
    for (uint32_t i = 0; i < form->per; i++) {
        const uint32_t code = place >> i * weight_bits & ((1u << weight_bits) - 1u);
        const uint32_t input = byte >> i * form->bits & ((1u << form->bits) - 1u);
        if (code < conv->weights.entries)
            sum += conv->weights.codebook[code] * (int32_t)input;
    }
    return sum;
}

void qxr_code_table_pack(const qxr_conv *conv, uint8_t *packed)
{
    const qxr_code_form form = form_of(conv);
    qxr_table_head *head = (qxr_table_head *)(void *)packed;
    qxr_codes_pack(conv, &form, 4u / form.per, packed);
    head->byte_steps = byte_steps(conv, form.per);
    for (uint32_t byte = 0; byte < 1u << (form.per * form.bits); byte++)
        for (uint32_t place = 0; place < QXR_TABLE_ROW; place++)
            head->row[byte][place] = (int8_t)sum_of(conv, &form, byte, place);
}

size_t qxr_code_table_scratch(const qxr_conv *conv)
{
    const qxr_code_form form = form_of(conv);
    return qxr_codes_scratch(conv, &form);
}

void qxr_code_table_tile(const qxr_conv *conv, const qxr_code_kernel *kernel, const qxr_conv_buffers *buffers,
                         const qxr_tile *tile, int32_t *y)
{
    const qxr_code_form form = form_of(conv);
    qxr_codes_tile(conv, &form, kernel, buffers, tile, y);
}
