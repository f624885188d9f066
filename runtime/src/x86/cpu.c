/* What this x86 processor and its operating system allow. */
#include <cpuid.h>

#include "x86/avx2.h"

enum { LEAF_1_OSXSAVE = 1 << 27, LEAF_1_AVX = 1 << 28 };

/* Registers that the system saves: XCR0. */
enum {
    XCR0_AVX = 0x6,
    XCR0_AVX512 = 0xE6,
    XCR0_TILES = 0x60000
};

static uint32_t saved_registers(void)
{
    uint32_t a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & LEAF_1_OSXSAVE) || !(c & LEAF_1_AVX))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int has(uint32_t saved, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    uint32_t a, b, c, d;
    return (saved_registers() & saved) == saved && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & ebx) == ebx &&
           (c & ecx) == ecx && (d & edx) == edx;
}

int qxr_cpu_has_avx2(void) { return has(XCR0_AVX, 1u << 5, 0, 0); }

#ifdef QXR_EMULATE

int qxr_cpu_has_avx512vnni(void) { return qxr_cpu_has_avx2(); }
int qxr_cpu_has_avx512vpopcntdq(void) { return qxr_cpu_has_avx2(); }
int qxr_cpu_has_amx(void) { return qxr_cpu_has_avx2(); }

#else

/* F, DQ, BW, VL and VNNI. */
int qxr_cpu_has_avx512vnni(void)
{
    return has(XCR0_AVX512, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, 1u << 11, 0);
}

int qxr_cpu_has_avx512vpopcntdq(void) { return has(XCR0_AVX512, 0, 1u << 14, 0); }

#if defined(__linux__) && defined(__x86_64__)

/* Linux lends a process the tile registers on request: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA). The request
 * is idempotent, and holds for every thread. */
static int may_use_tiles(void)
{
    enum { SYS_ARCH_PRCTL = 158, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    long result = SYS_ARCH_PRCTL;
    __asm__ volatile("syscall" : "+a"(result) : "D"(REQUEST_PERMISSION), "S"(TILE_DATA) : "rcx", "r11", "memory");
    return result == 0;
}

#else

static int may_use_tiles(void) { return 0; }

#endif

/* All that have tiles count bits, too; the instruction set inherits kernels that do. */
int qxr_cpu_has_amx(void)
{
    return qxr_cpu_has_avx512vnni() && qxr_cpu_has_avx512vpopcntdq() &&
           has(XCR0_TILES, 0, 0, 1u << 24 | 1u << 25) && may_use_tiles();
}

#endif
