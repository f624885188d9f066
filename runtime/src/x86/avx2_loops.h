/* How loops are written out. */
#ifndef QXR_AVX2_LOOPS_H
#define QXR_AVX2_LOOPS_H

#define INLINE static inline __attribute__((always_inline)) /* arguments that are constants make loops of their own */
#ifdef __clang__
#define UNROLL_2 _Pragma("clang loop unroll_count(2)")
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#define UNROLL_ALL _Pragma("clang loop unroll(full)")
#else
#define UNROLL_2 _Pragma("GCC unroll 2")
#define UNROLL_4 _Pragma("GCC unroll 4")
#define UNROLL_ALL _Pragma("GCC unroll 16") /* up to 16 turns */
#endif

#endif
