/* Convolutions of bytes with AVX-512 VNNI: four products to a 32-bit sum in one instruction, exact at any width. */
#ifdef QXR_EMULATE
#include "emulate_avx512.h"
#else
#include <immintrin.h>
#endif

#include "x86/avx2_loops.h"
#include "x86/avx512vnni.h"

enum { ROWS = QXR_AVX512VNNI_ROWS, FEW = 4, BLOCK = QXR_AVX512VNNI_BLOCK, HALF = 16 };

#define EACH_ROW(r) UNROLL_ALL for (uint32_t r = 0; r < rows; r++)

INLINE __m512i spread(const uint8_t *at)
{
    int32_t four;
    __builtin_memcpy(&four, at, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Sums stay in registers: `rows` is constant in each use. */
INLINE void multiply(const qxr_product *p, uint32_t rows)
{
    __m512i low[ROWS], high[ROWS];
    const uint8_t *w = p->weights;
    EACH_ROW(r) {
        low[r] = _mm512_loadu_si512(p->init + r * p->init_stride);
        high[r] = _mm512_loadu_si512(p->init + r * p->init_stride + HALF);
    }
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            size_t at = outer * p->outer_step + inner * p->inner_step;
            for (uint32_t step = 0; step < p->steps; step++, at += 4u, w += 4 * BLOCK) {
                const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 4 * HALF);
                EACH_ROW(r) {
                    const __m512i x = spread(p->row[r] + at);
                    low[r] = _mm512_dpbusd_epi32(low[r], x, w0);
                    high[r] = _mm512_dpbusd_epi32(high[r], x, w1);
                }
            }
        }
    EACH_ROW(r) {
        _mm512_storeu_si512(p->out + r * p->out_stride, low[r]);
        _mm512_storeu_si512(p->out + r * p->out_stride + HALF, high[r]);
    }
}

void qxr_avx512vnni_product(const qxr_product *p)
{
    if (p->count <= FEW)
        multiply(p, FEW);
    else
        multiply(p, ROWS);
}

static const qxr_row_kernel rows = {4, 1, ROWS, BLOCK, qxr_avx512vnni_product, 0, 0};

/* A quarter of the block, at least, has to be of use; groups of fewer channels do better with 16 bits in AVX2. */
enum { FEWEST_CHANNELS = 8 };

static int suits(const qxr_conv *conv)
{
    return qxr_storage(conv->in) == QXR_U8 && conv->input_peak <= 255u && conv->group_out >= FEWEST_CHANNELS &&
           qxr_rows_suit(conv, &rows);
}

static size_t packed_size(const qxr_conv *conv) { return qxr_rows_packed_size(conv, &rows); }
static void pack(const qxr_conv *conv, uint8_t *packed) { qxr_rows_pack(conv, &rows, packed); }
static size_t scratch_size(const qxr_conv *conv) { return qxr_rows_scratch(conv, &rows); }
static void tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *part, int32_t *y)
{
    qxr_rows_tile(conv, &rows, buffers, part, y);
}

static const qxr_conv_kernel u8_kernel = {"avx512vnni u8", suits, packed_size, pack, scratch_size, tile, NULL, 0};
static const qxr_conv_kernel *const conv_kernels[] = {&qxr_avx512vnni_bits, &qxr_avx512vnni_winograd, &u8_kernel, NULL};

/* Asked once a model: where the first kernel asked for each layer of each run, small layers would be slower for it, as
 * virtual machines intercept the question. */
static const qxr_isa *here(void);

#define INSTRUCTION_SET(kernels)                                                                                  \
    {                                                                                                             \
        .name = "avx512vnni", .parent = &qxr_isa_avx2, .available = qxr_cpu_has_avx512vnni, .here = here,         \
        .conv = kernels, .load = qxr_avx2_load, .store = qxr_avx2_store, .chain = qxr_avx2_chain,                 \
        .whole_chain = qxr_avx2_whole_chain, .tile_elements = 8192, .tile_channels = 512,                         \
        .block_channels = 128,                                                                                    \
    }

const qxr_isa qxr_isa_avx512vnni = INSTRUCTION_SET(conv_kernels);

/* Cascade Lake. */
static const qxr_isa without_vpopcntdq = INSTRUCTION_SET(conv_kernels + 1);

static const qxr_isa *here(void) { return qxr_cpu_has_avx512vpopcntdq() ? &qxr_isa_avx512vnni : &without_vpopcntdq; }
