/* Convolutions of bytes with AMX tiles: 16 x 16 sums of 64 products each in one instruction. */
#ifdef QXR_EMULATE
#include "emulate_amx.h"
#else
#include <immintrin.h>
#endif

#include "x86/avx2.h"

/* 2 x 2 tiles of sums, so that each tile that is loaded serves two multiplications. */
enum {
    HALF = 16,             /* rows or columns of a tile */
    ROWS = 2 * HALF,
    BLOCK = 2 * HALF,
    TILE_STEPS = 16,       /* steps of 4 products in a tile row of 64 bytes */
    STEPS_PER_STORE = 32   /* multiplications of a tile after which it is stored: long chains without a store run slowly */
};

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "tile configuration");

/* Tiles 0-3: sums; 4 and 5: inputs; 6 and 7: weights. All are full: 16 rows of 64 bytes. */
static const tile_config all_full = {
    1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {HALF, HALF, HALF, HALF, HALF, HALF, HALF, HALF}};

#ifdef QXR_EMULATE
static void begin_tiles(void) { emulate_amx_loadconfig(&all_full); }
#else
/* The intrinsic of some compilers loses the stores before it; an operand of the whole struct does not. */
static void begin_tiles(void) { __asm__ volatile("ldtilecfg %0" : : "m"(all_full)); }
#endif

/* 16 rows of 16 sums to memory; what they began with is added there, as tiles start from zero. */
static void add_init(const qxr_product *p, int32_t (*sums)[HALF], uint32_t first_row, uint32_t first_channel)
{
    for (uint32_t r = 0; r < HALF && first_row + r < p->count; r++) {
        const int32_t *init = p->init + (first_row + r) * p->init_stride + first_channel;
        int32_t *out = p->out + (first_row + r) * p->out_stride + first_channel;
        for (uint32_t c = 0; c < HALF; c++)
            out[c] = qxr_wrap_add(init[c], sums[r][c]);
    }
}

static void product(const qxr_product *p)
{
    const size_t window = (size_t)(p->row[1] - p->row[0]);
    const int lower = p->count > HALF, right = p->lanes > HALF;
    const uint8_t *x = p->row[0], *w = p->weights;
    int32_t sums[4][HALF][HALF];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (uint32_t step = 0; step < p->steps; step += TILE_STEPS, x += 4 * TILE_STEPS, w += 4 * TILE_STEPS * BLOCK) {
        _tile_loadd(4, x, window);
        _tile_loadd(6, w, 4 * BLOCK);
        _tile_dpbusd(0, 4, 6);
        if (right) {
            _tile_loadd(7, w + 4 * HALF, 4 * BLOCK);
            _tile_dpbusd(1, 4, 7);
        }
        if (lower) {
            _tile_loadd(5, x + HALF * window, window);
            _tile_dpbusd(2, 5, 6);
        }
        if (lower && right)
            _tile_dpbusd(3, 5, 7);
        if (step / TILE_STEPS % STEPS_PER_STORE == STEPS_PER_STORE - 1u)
            _tile_stored(0, sums[0], sizeof sums[0][0]);
    }
    _tile_stored(0, sums[0], sizeof sums[0][0]);
    _tile_stored(1, sums[1], sizeof sums[0][0]);
    _tile_stored(2, sums[2], sizeof sums[0][0]);
    _tile_stored(3, sums[3], sizeof sums[0][0]);
    __asm__ volatile("" : : : "memory"); /* the stores of tiles are behind the compiler's back */
    add_init(p, sums[0], 0, 0);
    if (right)
        add_init(p, sums[1], 0, HALF);
    if (lower)
        add_init(p, sums[2], HALF, 0);
    if (lower && right)
        add_init(p, sums[3], HALF, HALF);
}

/* Windows are copied to rows of equal distance, as a tile is loaded; 32 of them at least, whatever the pixels. */
static const qxr_row_kernel rows = {4, 1, ROWS, BLOCK, TILE_STEPS, product};

/* A half of a tile, at least, has to be of use. */
enum { FEWEST_CHANNELS = 8 };

static int suits(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= 255u && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, &rows);
}

static size_t packed_size(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &rows); }
static void pack(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &rows, packed); }
static size_t scratch_size(const qxr_conv *conv) { return qxr_rows_scratch(conv, &rows); }

/* The configuration belongs to the thread, which may be one of the host's: it is set for the tile and given up behind. */
static void tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *part, int32_t *y)
{
    begin_tiles();
    qxr_rows_tile(conv, &rows, buffers, part, y);
    _tile_release();
}

static const qxr_conv_kernel u8_kernel = {"amx u8", suits, packed_size, pack, scratch_size, tile, NULL};
static const qxr_conv_kernel *const conv_kernels[] = {&u8_kernel, NULL};

const qxr_isa qxr_isa_amx = {
    .name = "amx",
    .parent = &qxr_isa_avx512vnni,
    .available = qxr_cpu_has_amx,
    .conv = conv_kernels,
    .load = qxr_avx2_load,
    .store = qxr_avx2_store,
    .chain = qxr_avx2_chain,
    .whole_chain = qxr_avx2_whole_chain,
    .tile_elements = 8192,
    .tile_channels = 512,
};
