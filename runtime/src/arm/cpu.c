/* What this 64-bit ARM processor and its operating system allow beyond NEON.
 *
 * Linux, and so Android, tells a process by the vector that /proc/self/auxv shows, read here by system calls: the library calls
 * no other. Elsewhere, instructions count as present where the whole library is compiled for them (-march=armv8.2-a+dotprod+i8mm),
 * as compilers for Apple's computers do without being asked. */
#include "arm/neon.h"

#if defined(__linux__)

enum { SYS_OPENAT = 56, SYS_CLOSE = 57, SYS_READ = 63, CURRENT_FOLDER = -100, READ_ONLY = 0 };
enum { AT_HWCAP = 16, AT_HWCAP2 = 26, ENTRIES = 64 };

typedef struct entry {
    uint64_t type, value;
} entry;

static long call(long number, long a, long b, long c)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = 0;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}

/* 0 where the system does not tell. */
static uint64_t vector_entry(uint64_t type)
{
    entry vector[ENTRIES] = {{0, 0}};
    const long file = call(SYS_OPENAT, CURRENT_FOLDER, (long)(uintptr_t) "/proc/self/auxv", READ_ONLY);
    long size;
    if (file < 0)
        return 0;
    size = call(SYS_READ, file, (long)(uintptr_t)vector, (long)sizeof vector);
    call(SYS_CLOSE, file, 0, 0);
    for (long i = 0; i < size / (long)sizeof *vector; i++)
        if (vector[i].type == type)
            return vector[i].value;
    return 0;
}

static int has(uint64_t type, uint32_t bit) { return (vector_entry(type) >> bit & 1u) != 0; }

int qxr_cpu_has_dotprod(void) { return has(AT_HWCAP, 20); }
int qxr_cpu_has_i8mm(void) { return qxr_cpu_has_dotprod() && has(AT_HWCAP2, 13); }

#else

int qxr_cpu_has_dotprod(void)
{
#ifdef __ARM_FEATURE_DOTPROD
    return 1;
#else
    return 0;
#endif
}

int qxr_cpu_has_i8mm(void)
{
#if defined(__ARM_FEATURE_MATMUL_INT8) && defined(__ARM_FEATURE_DOTPROD)
    return 1;
#else
    return 0;
#endif
}

#endif
