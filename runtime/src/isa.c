/* The instruction sets this build has kernels for, and the choice among them. */
#include "kernels.h"

#include "scalar/scalar.h"

static int always(void) { return 1; }

static const qxr_conv_kernel *const scalar_conv[] = {&qxr_scalar_conv_kernel, NULL};

const qxr_isa qxr_isa_scalar = {
    .name = "scalar",
    .available = always,
    .conv = scalar_conv,
    .tile = {
        [QXR_BORDER_BIAS] = qxr_scalar_border_bias,
        [QXR_THRESHOLD] = qxr_scalar_threshold,
        [QXR_RESCALE] = qxr_scalar_rescale,
        [QXR_ADD] = qxr_scalar_add,
        [QXR_CLIP] = qxr_scalar_clip,
        [QXR_MAX_POOL] = qxr_scalar_max_pool,
        [QXR_SUM_POOL] = qxr_scalar_sum_pool,
        [QXR_PAD] = qxr_scalar_pad,
        [QXR_SLICE] = qxr_scalar_slice,
        [QXR_CONCAT] = qxr_scalar_concat,
        [QXR_RESHAPE] = qxr_scalar_reshape,
        [QXR_TRANSPOSE] = qxr_scalar_transpose,
        [QXR_L2_NORM] = qxr_scalar_l2_norm,
    },
    .load = qxr_scalar_load,
    .store = qxr_scalar_store,
    .interleave = qxr_scalar_interleave,
    .tile_elements = 512,
    .tile_channels = 16,
    .block_channels = 128,
};

/* Best last. */
static const qxr_isa *const table[] = {
    &qxr_isa_scalar,
#ifdef QXR_HAVE_AVX2
    &qxr_isa_avx2,
#endif
#ifdef QXR_HAVE_AVX512VNNI
    &qxr_isa_avx512vnni,
#endif
#ifdef QXR_HAVE_AMX
    &qxr_isa_amx,
#endif
#ifdef QXR_HAVE_SIMD128
    &qxr_isa_simd128,
#endif
#ifdef QXR_HAVE_NEON
    &qxr_isa_neon,
#endif
#ifdef QXR_HAVE_DOTPROD
    &qxr_isa_dotprod,
#endif
#ifdef QXR_HAVE_I8MM
    &qxr_isa_i8mm,
#endif
};

enum { ISA_COUNT = sizeof table / sizeof table[0] };

static int same_text(const char *a, const char *b)
{
    for (; *a && *a == *b; a++)
        b++;
    return *a == *b;
}

static const qxr_isa *find(const char *name)
{
    for (uint32_t i = 0; i < ISA_COUNT; i++)
        if (same_text(table[i]->name, name))
            return table[i];
    return NULL;
}

static const qxr_isa *best(void)
{
    uint32_t i = ISA_COUNT - 1u;
    while (!table[i]->available())
        i--;
    return table[i];
}

const char *qxr_isa_name(uint32_t index) { return index < ISA_COUNT ? table[index]->name : NULL; }

int qxr_isa_available(const char *name)
{
    const qxr_isa *isa = name ? find(name) : NULL;
    return isa && isa->available();
}

qxr_status qxr_select_isa(qxr_model *model, const char *name)
{
    const qxr_isa *isa;
    if (!model)
        return QXR_ERROR_ARGUMENT;
    isa = name ? find(name) : best();
    if (!isa || !isa->available())
        return QXR_ERROR_ISA;
    model->isa = isa->here ? isa->here() : isa;
    model->prepacked = NULL;
    return QXR_OK;
}

const qxr_isa *qxr_model_isa(const qxr_model *model) { return model->isa ? model->isa : &qxr_isa_scalar; }

const char *qxr_selected_isa(const qxr_model *model) { return qxr_model_isa(model)->name; }

qxr_tile_function *qxr_tile_kernel(const qxr_isa *isa, uint32_t opcode)
{
    while (!isa->tile[opcode])
        isa = isa->parent;
    return isa->tile[opcode];
}

const qxr_conv_kernel *qxr_choose_conv(const qxr_isa *isa, const qxr_conv *conv)
{
    for (; isa; isa = isa->parent)
        for (uint32_t i = 0; isa->conv[i]; i++)
            if (isa->conv[i]->suits(conv))
                return isa->conv[i];
    return &qxr_scalar_conv_kernel;
}
