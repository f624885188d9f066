/* The instruction set AMX: its convolutions, of weights as bytes and as codes, and what follows them; everything else is
 * that of its parents. */
#include <string.h>

#include "x86/amx_conv.h"

const qxr_row_kernel qxr_amx_rows = {4, 1, PAIR, BLOCK, NULL, TILE_STEPS, RUN};

/* ---- Weights as bytes ---- */

/* A half of a tile, at least, has to be of use. */
enum { FEWEST_CHANNELS = 8 };

static int bytes_suit(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= 255u && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, &qxr_amx_rows);
}

static size_t bytes_packed(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &qxr_amx_rows); }
static void pack_bytes(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &qxr_amx_rows, packed); }
static size_t bytes_scratch(const qxr_conv *conv) { return qxr_rows_scratch(conv, &qxr_amx_rows); }

static qxr_amx_packing bytes_packing(const qxr_conv *conv)
{
    qxr_amx_packing k = {qxr_rows_plan(conv, &qxr_amx_rows), 0, 0};
    k.sums = k.layout.sums;
    return k;
}

static void bytes_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const qxr_amx_packing k = bytes_packing(conv);
    const qxr_amx_result to = {y, NULL, NULL, tile->channels};
    qxr_amx_tile(conv, &k, buffers, tile, &to);
}

static void bytes_words(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y)
{
    const qxr_amx_packing k = bytes_packing(conv);
    const qxr_amx_result to = {NULL, y.at, NULL, y.pitch};
    qxr_amx_tile(conv, &k, buffers, tile, &to);
}

static const qxr_conv_kernel bytes_kernel = {"amx u8", bytes_suit, bytes_packed, pack_bytes, bytes_scratch, bytes_tile,
                                    bytes_words, 0};

/* ---- Weights as codes of two bits, for layers whose bytes would come from far at every run ---- */

enum {
    LEAST_BYTES = 1 << 20, /* below, bytes stay near from one run to the next */
    RUN_OF_CODES = 320     /* weights at a time: whole bytes of every coding */
};

static qxr_amx_packing codes_packing(const qxr_conv *conv)
{
    qxr_amx_packing k = {qxr_rows_plan(conv, &qxr_amx_rows), 0, 0};
    k.codes_bytes = k.layout.plane_bytes / 4u;
    k.sums = QXR_PACK_HEAD + k.layout.blocks * k.codes_bytes;
    return k;
}

static size_t codes_packed(const qxr_conv *conv)
{
    const qxr_amx_packing k = codes_packing(conv);
    return k.sums + (size_t)k.layout.blocks * BLOCK * sizeof(int32_t);
}

/* Whole tiles: bytes behind a segment would be multiplied by a level, which need not be zero. */
static int codes_suit(const qxr_conv *conv)
{
    const uint32_t entries = conv->op->count ? conv->op->count : 1u << qxr_min(conv->op->parameter, 31u);
    if (!bytes_suit(conv) || entries > 4u || conv->op->groups != 1u || qxr_weight_planes(conv, &qxr_amx_rows) != 1u)
        return 0;
    const qxr_amx_packing k = codes_packing(conv);
    return k.layout.length % TILE_BYTES == 0u && k.layout.bytes > LEAST_BYTES &&
           (uint64_t)qxr_pixels(conv->out) * BLOCK <= qxr_isa_amx.tile_elements;
}

static size_t codes_scratch(const qxr_conv *conv)
{
    const qxr_amx_packing k = codes_packing(conv);
    return qxr_round_up(qxr_rows_scratch(conv, &qxr_amx_rows), 64u) + k.layout.plane_bytes;
}

/* What a code of two bits stands for. Without a codebook it is the weight itself, of one or two bits. */
static int32_t level_of(const qxr_conv *conv, uint32_t code)
{
    const uint32_t sign = 1u << (conv->op->parameter - 1u);
    if (conv->op->count)
        return code < conv->op->count ? conv->weights.codebook[code] : 0;
    return (int32_t)((code & (2u * sign - 1u)) ^ sign) - (int32_t)sign;
}

/* Some codes of one channel from code `first` on, eight at a time: whole tiles leave no gaps between segments. */
static void put_codes(const int32_t *codes, uint32_t count, uint32_t first, uint32_t lane, uint8_t *to)
{
    to += first / 8u * 64u + lane % HALF * 4u;
    for (uint32_t i = 0; i < count; i += 8u, to += 64u) {
        uint32_t all = 0, others;
        for (uint32_t j = 0; j < 4u; j++)
            all |= (((uint32_t)codes[i + j] & 3u) | ((uint32_t)codes[i + 4u + j] & 3u) << 4) << 8u * j;
        memcpy(&others, to, sizeof others);
        others |= all << lane / HALF * 2u;
        memcpy(to, &others, sizeof others);
    }
}

static void pack_codes(const qxr_conv *conv, uint8_t *packed)
{
    const qxr_amx_packing k = codes_packing(conv);
    qxr_amx_levels *levels = (qxr_amx_levels *)(void *)packed;
    int32_t *sums = (int32_t *)(void *)(packed + k.sums);
    memset(packed, 0, codes_packed(conv));
    for (uint32_t i = 0; i < LEVEL_BYTES; i++) {
        levels->first[i] = (int8_t)level_of(conv, i % 4u);
        levels->second[i] = (int8_t)level_of(conv, i / 4u);
    }
    for (uint32_t o = 0; o < conv->out->extent[0]; o++) {
        uint8_t *to = packed + QXR_PACK_HEAD + o / BLOCK * k.codes_bytes;
        int32_t sum = 0;
        for (uint32_t j = 0; j < conv->row; j += RUN_OF_CODES) {
            const uint32_t count = qxr_min(RUN_OF_CODES, conv->row - j);
            int32_t codes[RUN_OF_CODES];
            qxr_weight_codes(&conv->weights, o, j, count, codes);
            put_codes(codes, count, j, o % BLOCK, to);
            for (uint32_t i = 0; i < count && conv->base; i++)
                sum += levels->first[(uint32_t)codes[i] & 3u];
        }
        sums[o] = qxr_wrap_mul(sum, conv->base);
    }
}

static void codes_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    const qxr_amx_packing k = codes_packing(conv);
    const qxr_amx_result to = {y, NULL, NULL, tile->channels};
    qxr_amx_tile(conv, &k, buffers, tile, &to);
}

static void codes_words(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, qxr_words y)
{
    const qxr_amx_packing k = codes_packing(conv);
    const qxr_amx_result to = {NULL, y.at, NULL, y.pitch};
    qxr_amx_tile(conv, &k, buffers, tile, &to);
}

static const qxr_conv_kernel codes_kernel = {"amx codes", codes_suit, codes_packed, pack_codes, codes_scratch, codes_tile,
                                       codes_words, 4};

/* ---- With what follows in the group ---- */

static int whole_chain(const qxr_conv_kernel *kernel, const qxr_conv *conv, const qxr_conv_buffers *buffers,
                       const qxr_chain *chain, const qxr_tile *tile)
{
    const int is_bytes = kernel == &bytes_kernel;
    qxr_epilogue e;
    if (!conv || (!is_bytes && kernel != &codes_kernel) || !qxr_plan_epilogue(chain, conv, tile, &e))
        return qxr_avx2_whole_chain(kernel, conv, buffers, chain, tile);
    const qxr_amx_packing k = is_bytes ? bytes_packing(conv) : codes_packing(conv);
    const qxr_amx_result to = {NULL, NULL, &e, 0};
    qxr_amx_tile(conv, &k, buffers, tile, &to);
    return 1;
}

static const qxr_conv_kernel *const conv_kernels[] = {&codes_kernel, &bytes_kernel, NULL};

const qxr_isa qxr_isa_amx = {
    .name = "amx",
    .parent = &qxr_isa_avx512vnni,
    .available = qxr_cpu_has_amx,
    .conv = conv_kernels,
    .load = qxr_avx2_load,
    .store = qxr_avx2_store,
    .chain = qxr_avx2_chain,
    .whole_chain = whole_chain,
    .tile_elements = 16384,
    .tile_channels = 512,
    .block_channels = 32,
};
