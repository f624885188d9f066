/* Products of AMX tiles: 16 x 16 sums of 64 products each in one instruction. Two tiles of inputs and two of weights make
 * four of sums, so that each tile that is loaded serves two multiplications. */
#include <immintrin.h>

#ifdef QXR_EMULATE
#include "emulate_amx.h"
#endif

#include "x86/amx_product.h"

enum {
    STEPS_PER_STORE = 32, /* after so many the sums of a tile are stored: long chains without a store run slowly */
    AHEAD = 2             /* steps between the unpacking of weights and their use */
};

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "tile configuration");

/* Tiles 0-3: sums; 4 and 5: inputs; 6 and 7: weights. All are full: 16 rows of 64 bytes. */
static const tile_config all_full = {
    1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {RUN, RUN, RUN, RUN, RUN, RUN, RUN, RUN}};

#ifdef QXR_EMULATE
void qxr_amx_begin(void) { emulate_amx_loadconfig(&all_full); }
#else
/* The intrinsic of some compilers loses the stores before it; an operand of the whole struct does not. */
void qxr_amx_begin(void) { __asm__ volatile("ldtilecfg %0" : : "m"(all_full)); }
#endif

void qxr_amx_end(void) { _tile_release(); }

/* Tiles are loaded and stored behind the compiler's back. */
static inline void settle_memory(void) { __asm__ volatile("" : : : "memory"); }

#define INLINE static inline __attribute__((always_inline)) /* flags are constants in each place of use */

/* The weights of a block for one tile of inputs. */
INLINE void unpack_step(const uint8_t *codes, __m256i first, __m256i second, uint8_t *to)
{
    const __m256i two_codes = _mm256_set1_epi8(15);
    for (uint32_t i = 0; i < CODE_BYTES; i += 32u) {
        const __m256i all = _mm256_loadu_si256((const __m256i *)(const void *)(codes + i));
        const __m256i low = _mm256_and_si256(all, two_codes);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(all, 4), two_codes);
        __m256i *at = (__m256i *)(void *)(to + i / 64u * 256u + i % 64u);
        _mm256_storeu_si256(at, _mm256_shuffle_epi8(first, low));
        _mm256_storeu_si256(at + 2, _mm256_shuffle_epi8(second, low));
        _mm256_storeu_si256(at + 4, _mm256_shuffle_epi8(first, high));
        _mm256_storeu_si256(at + 6, _mm256_shuffle_epi8(second, high));
    }
}

INLINE __m256i read_levels(const int8_t *levels)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)levels));
}

INLINE void multiply_step(const uint8_t *a, const uint8_t *b, size_t step, const uint8_t *w, int lower, int right)
{
    _tile_loadd(6, w, 4 * BLOCK);
    _tile_loadd(4, a, step);
    _tile_dpbusd(0, 4, 6);
    if (right) {
        _tile_loadd(7, w + 4 * HALF, 4 * BLOCK);
        _tile_dpbusd(1, 4, 7);
    }
    if (lower) {
        _tile_loadd(5, b, step);
        _tile_dpbusd(2, 5, 6);
        if (right)
            _tile_dpbusd(3, 5, 7);
    }
}

INLINE void begin_sums(const int32_t *init)
{
    _tile_loadd(0, init, 0);
    _tile_loadd(1, init + HALF, 0);
    _tile_loadd(2, init, 0);
    _tile_loadd(3, init + HALF, 0);
}

INLINE void store_sums(int32_t (*sums)[BLOCK], int lower, int right)
{
    const size_t pitch = sizeof sums[0];
    _tile_stored(0, sums[0], pitch);
    if (right)
        _tile_stored(1, sums[0] + HALF, pitch);
    if (lower)
        _tile_stored(2, sums[RUN], pitch);
    if (lower && right)
        _tile_stored(3, sums[RUN] + HALF, pitch);
}

INLINE void multiply(const qxr_amx_product *p, int32_t (*sums)[BLOCK], int lower, int right, int unpacks)
{
    const __m256i first = unpacks ? read_levels(p->levels->first) : _mm256_setzero_si256();
    const __m256i second = unpacks ? read_levels(p->levels->second) : first;
    const uint32_t all = p->outer * p->inner * p->tiles;
    const uint8_t *w = p->weights;
    uint32_t done = 0;
    if (unpacks)
        for (uint32_t i = 0; i < qxr_min(AHEAD, all); i++)
            unpack_step(p->codes + i * CODE_BYTES, first, second, p->unpacked + i * STEP_BYTES);
    settle_memory();
    begin_sums(p->init);
    for (uint32_t outer = 0; outer < p->outer; outer++)
        for (uint32_t inner = 0; inner < p->inner; inner++) {
            const size_t segment = outer * p->outer_step + inner * p->inner_step;
            for (uint32_t t = 0; t < p->tiles; t++, w += STEP_BYTES) {
                const size_t at = segment + (size_t)t * TILE_BYTES;
                if (unpacks && done + AHEAD < all) {
                    const size_t next = done + AHEAD;
                    unpack_step(p->codes + next * CODE_BYTES, first, second, p->unpacked + next * STEP_BYTES);
                    settle_memory();
                }
                multiply_step(p->x[0] + at, lower ? p->x[1] + at : NULL, p->step, w, lower, right);
                if (p->beside)
                    p->beside(p->context, done, all);
                if (++done % STEPS_PER_STORE == 0u)
                    _tile_stored(0, sums[0], sizeof sums[0]);
            }
        }
    store_sums(sums, lower, right);
    settle_memory();
}

void qxr_amx_multiply(const qxr_amx_product *p, int32_t (*sums)[BLOCK])
{
    const int lower = p->x[1] != NULL;
    if (p->codes)
        multiply(p, sums, lower, p->right, 1);
    else if (lower && p->right)
        multiply(p, sums, 1, 1, 0);
    else
        multiply(p, sums, lower, p->right, 0);
}
