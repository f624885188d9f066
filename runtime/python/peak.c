/* The fastest 8-bit products of an instruction set: tiles of sums in registers, operands in the first-level cache. Kernels
 * of layers are measured beside it. The sums are what int8 engines compute, int32 of uint8 x int8 (AVX2: pairs of products
 * are joined in 16 bits first, as those engines do); the sums of 1- to 4-bit codes, which may stay in 16 bits for longer,
 * can be faster. */
#include "peak.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#endif

enum { OPERAND_BYTES = 4096 };

/* Operands, and where the sums end, so that no compiler leaves them out. */
typedef struct operands {
    _Alignas(64) int8_t a[OPERAND_BYTES], b[OPERAND_BYTES];
    _Alignas(64) int32_t sums[1024];
} operands;

/* Runs over the operands once; returns products. */
typedef uint64_t products(operands *o);

static uint64_t scalar(operands *o)
{
    int32_t sums[4] = {0};
    for (uint32_t i = 0; i < OPERAND_BYTES; i++)
        for (uint32_t j = 0; j < 4; j++)
            sums[j] += o->a[i] * o->b[i ^ j];
    memcpy(o->sums, sums, sizeof sums);
    return 4u * OPERAND_BYTES;
}

#if defined(__x86_64__)

/* Two vectors of columns by four rows: every row is one broadcast of four bytes. */
__attribute__((target("avx2"))) static uint64_t avx2(operands *o)
{
    enum { ROWS = 4, VECTORS = 2, STEPS = OPERAND_BYTES / (32 * VECTORS) };
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[ROWS][VECTORS];
#pragma GCC unroll 4
    for (uint32_t r = 0; r < ROWS; r++)
        sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    for (uint32_t step = 0; step < STEPS; step++) {
        const __m256i *b = (const __m256i *)(const void *)o->b + VECTORS * step;
        const __m256i b0 = _mm256_load_si256(b), b1 = _mm256_load_si256(b + 1);
#pragma GCC unroll 4
        for (uint32_t r = 0; r < ROWS; r++) {
            int32_t four;
            memcpy(&four, o->a + 4 * (ROWS * step + r), sizeof four);
            const __m256i a = _mm256_set1_epi32(four);
            sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b0), ones));
            sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b1), ones));
        }
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < ROWS; r++) {
        _mm256_store_si256((__m256i *)(void *)o->sums + VECTORS * r, sums[r][0]);
        _mm256_store_si256((__m256i *)(void *)o->sums + VECTORS * r + 1, sums[r][1]);
    }
    return (uint64_t)STEPS * ROWS * VECTORS * 32u;
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))) static uint64_t avx512vnni(operands *o)
{
    enum { ROWS = 12, VECTORS = 2, STEPS = OPERAND_BYTES / (64 * VECTORS) };
    __m512i sums[ROWS][VECTORS];
#pragma GCC unroll 12
    for (uint32_t r = 0; r < ROWS; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_si512();
    for (uint32_t step = 0; step < STEPS; step++) {
        const __m512i *b = (const __m512i *)(const void *)o->b + VECTORS * step;
        const __m512i b0 = _mm512_load_si512(b), b1 = _mm512_load_si512(b + 1);
#pragma GCC unroll 12
        for (uint32_t r = 0; r < ROWS; r++) {
            int32_t four;
            memcpy(&four, o->a + 4 * (ROWS * step + r), sizeof four);
            const __m512i a = _mm512_set1_epi32(four);
            sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], a, b0);
            sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], a, b1);
        }
    }
#pragma GCC unroll 12
    for (uint32_t r = 0; r < ROWS; r++) {
        _mm512_store_si512(o->sums + 16 * (VECTORS * r), sums[r][0]);
        _mm512_store_si512(o->sums + 16 * (VECTORS * r + 1), sums[r][1]);
    }
    return (uint64_t)STEPS * ROWS * VECTORS * 64u;
}

#if defined(__linux__) && ((defined(__GNUC__) && __GNUC__ >= 11) || (defined(__clang__) && __clang_major__ >= 12))
#define HAVE_AMX

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* 2 x 2 tiles of sums, each operand loaded for two multiplications. */
__attribute__((target("amx-tile,amx-int8"))) static uint64_t amx(operands *o)
{
    enum { TILE = 1024, STEPS = OPERAND_BYTES / (2 * TILE), REPEATS = 8 };
    tile_config all_full = {.palette = 1};
    for (uint32_t t = 0; t < 8; t++) {
        all_full.row_bytes[t] = 64;
        all_full.rows[t] = 16;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(all_full));
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (uint32_t step = 0; step < REPEATS * STEPS; step++) {
        const int8_t *a = o->a + step % STEPS * (2 * TILE), *b = o->b + step % STEPS * (2 * TILE);
        _tile_loadd(4, a, 64);
        _tile_loadd(5, a + TILE, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + TILE, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, o->sums, 64);
    _tile_stored(1, o->sums + 256, 64);
    _tile_stored(2, o->sums + 512, 64);
    _tile_stored(3, o->sums + 768, 64);
    _tile_release();
    return (uint64_t)REPEATS * STEPS * 4u * 16u * 16u * 64u;
}

#endif
#elif defined(__aarch64__) && defined(__linux__)

static uint64_t neon(operands *o)
{
    enum { ROWS = 8, STEPS = OPERAND_BYTES / (16 * ROWS) };
    int32x4_t sums[ROWS];
#pragma GCC unroll 8
    for (uint32_t r = 0; r < ROWS; r++)
        sums[r] = vdupq_n_s32(0);
    for (uint32_t step = 0; step < STEPS; step++) {
        const int8x16_t b = vld1q_s8(o->b + 16 * step);
#pragma GCC unroll 8
        for (uint32_t r = 0; r < ROWS; r++) {
            const int8x16_t a = vld1q_s8(o->a + 16 * (ROWS * step + r));
            const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            sums[r] = vpadalq_s16(sums[r], vmlal_high_s8(low, a, b));
        }
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < ROWS; r++)
        vst1q_s32(o->sums + 4 * r, sums[r]);
    return (uint64_t)STEPS * ROWS * 16u;
}

#if (defined(__clang__) && __clang_major__ >= 16) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 10)
#define HAVE_ARM_DOT

__attribute__((target("arch=armv8.2-a+dotprod"))) static uint64_t dotprod(operands *o)
{
    enum { GROUPS = 4, VECTORS = 4, STEPS = OPERAND_BYTES / (16 * VECTORS) };
    int32x4_t sums[VECTORS][4];
#pragma GCC unroll 4
    for (uint32_t v = 0; v < VECTORS; v++)
        sums[v][0] = sums[v][1] = sums[v][2] = sums[v][3] = vdupq_n_s32(0);
    for (uint32_t step = 0; step < STEPS; step++) {
        const int8x16_t a = vld1q_s8(o->a + 16 * step);
#pragma GCC unroll 4
        for (uint32_t v = 0; v < VECTORS; v++) {
            const int8x16_t b = vld1q_s8(o->b + 16 * (VECTORS * step + v));
            sums[v][0] = vdotq_laneq_s32(sums[v][0], b, a, 0);
            sums[v][1] = vdotq_laneq_s32(sums[v][1], b, a, 1);
            sums[v][2] = vdotq_laneq_s32(sums[v][2], b, a, 2);
            sums[v][3] = vdotq_laneq_s32(sums[v][3], b, a, 3);
        }
    }
#pragma GCC unroll 4
    for (uint32_t v = 0; v < VECTORS; v++) {
        vst1q_s32(o->sums + 16 * v, sums[v][0]);
        vst1q_s32(o->sums + 16 * v + 4, sums[v][1]);
        vst1q_s32(o->sums + 16 * v + 8, sums[v][2]);
        vst1q_s32(o->sums + 16 * v + 12, sums[v][3]);
    }
    return (uint64_t)STEPS * VECTORS * GROUPS * 16u;
}

__attribute__((target("arch=armv8.2-a+i8mm"))) static uint64_t i8mm(operands *o)
{
    enum { ROWS = 4, VECTORS = 4, STEPS = OPERAND_BYTES / (16 * VECTORS) };
    int32x4_t sums[ROWS][VECTORS];
#pragma GCC unroll 4
    for (uint32_t r = 0; r < ROWS; r++)
        sums[r][0] = sums[r][1] = sums[r][2] = sums[r][3] = vdupq_n_s32(0);
    for (uint32_t step = 0; step < STEPS; step++) {
        int8x16_t b[VECTORS];
        for (uint32_t v = 0; v < VECTORS; v++)
            b[v] = vld1q_s8(o->b + 16 * (VECTORS * step + v));
#pragma GCC unroll 4
        for (uint32_t r = 0; r < ROWS; r++) {
            const uint8x16_t a = vreinterpretq_u8_s8(vld1q_s8(o->a + 16 * (ROWS * step + r)));
#pragma GCC unroll 4
            for (uint32_t v = 0; v < VECTORS; v++)
                sums[r][v] = vusmmlaq_s32(sums[r][v], a, b[v]);
        }
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < ROWS; r++) {
        vst1q_s32(o->sums + 16 * r, sums[r][0]);
        vst1q_s32(o->sums + 16 * r + 4, sums[r][1]);
        vst1q_s32(o->sums + 16 * r + 8, sums[r][2]);
        vst1q_s32(o->sums + 16 * r + 12, sums[r][3]);
    }
    return (uint64_t)STEPS * ROWS * VECTORS * 32u;
}

#endif
#endif

static products *choose(const char *isa)
{
#if defined(__x86_64__)
    if (strcmp(isa, "avx2") == 0)
        return avx2;
    if (strcmp(isa, "avx512vnni") == 0)
        return avx512vnni;
#ifdef HAVE_AMX
    if (strcmp(isa, "amx") == 0)
        return amx;
#endif
#elif defined(__aarch64__) && defined(__linux__)
    if (strcmp(isa, "neon") == 0)
        return neon;
#ifdef HAVE_ARM_DOT
    if (strcmp(isa, "dotprod") == 0)
        return dotprod;
    if (strcmp(isa, "i8mm") == 0)
        return i8mm;
#endif
#endif
    return strcmp(isa, "scalar") == 0 ? scalar : NULL;
}

uint64_t peak_products(const char *isa, uint64_t least)
{
    static const int8_t noise[13] = {1, 2, 3, 1, 2, 1, 3, 2, 1, 1, 2, 3, 1};
    operands o;
    uint64_t done = 0;
    products *run = choose(isa);
    for (uint32_t i = 0; i < OPERAND_BYTES; i++) { /* small, so that no sum wraps or saturates */
        o.a[i] = noise[i % 13u];
        o.b[i] = noise[i % 11u];
    }
    while (run != NULL && done < least) {
        done += run(&o);
        __asm__ volatile("" : : "r"(&o) : "memory");
    }
    return done;
}
