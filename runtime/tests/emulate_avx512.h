/* The AVX-512 intrinsics that qxr uses, for tests on processors without them: SIMDe's, and those it lacks. */
#ifndef QXR_EMULATE_AVX512_H
#define QXR_EMULATE_AVX512_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

static inline simde__m128i emulate_cvtepi32_epi8(simde__m512i v)
{
    int32_t wide[16];
    uint8_t narrow[16];
    simde_mm512_storeu_si512(wide, v);
    for (int i = 0; i < 16; i++)
        narrow[i] = (uint8_t)wide[i];
    return simde_mm_loadu_si128((const simde__m128i *)(const void *)narrow);
}

static inline simde__m256i emulate_cvtepi32_epi16(simde__m512i v)
{
    int32_t wide[16];
    uint16_t narrow[16];
    simde_mm512_storeu_si512(wide, v);
    for (int i = 0; i < 16; i++)
        narrow[i] = (uint16_t)wide[i];
    return simde_mm256_loadu_si256((const simde__m256i *)(const void *)narrow);
}

static inline simde__m512i emulate_cvtepu8_epi32(simde__m128i v)
{
    uint8_t narrow[16];
    int32_t wide[16];
    simde_mm_storeu_si128((simde__m128i *)(void *)narrow, v);
    for (int i = 0; i < 16; i++)
        wide[i] = narrow[i];
    return simde_mm512_loadu_si512(wide);
}

static inline simde__m512i emulate_cvtepi16_epi32(simde__m256i v)
{
    int16_t narrow[16];
    int32_t wide[16];
    simde_mm256_storeu_si256((simde__m256i *)(void *)narrow, v);
    for (int i = 0; i < 16; i++)
        wide[i] = narrow[i];
    return simde_mm512_loadu_si512(wide);
}

static inline simde__m512i emulate_sra_epi32(simde__m512i v, simde__m128i count)
{
    int32_t wide[16];
    simde_mm512_storeu_si512(wide, v);
    for (int i = 0; i < 16; i++)
        wide[i] >>= simde_mm_cvtsi128_si32(count);
    return simde_mm512_loadu_si512(wide);
}

#define _mm512_sra_epi32(v, count) emulate_sra_epi32(v, count)
#define _mm512_srai_epi32(v, count) emulate_sra_epi32(v, simde_mm_cvtsi32_si128((int)(count)))
#define _mm512_cvtepi32_epi8(v) emulate_cvtepi32_epi8(v)
#define _mm512_cvtepi32_epi16(v) emulate_cvtepi32_epi16(v)
#define _mm512_cvtepu8_epi32(v) emulate_cvtepu8_epi32(v)
#define _mm512_cvtepi16_epi32(v) emulate_cvtepi16_epi32(v)

#endif
