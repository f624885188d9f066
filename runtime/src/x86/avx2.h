/* The AVX2 kernels. */
#ifndef QXR_AVX2_H
#define QXR_AVX2_H

#include "scalar/scalar.h"
#include "x86/rows.h"

extern const qxr_conv_kernel qxr_avx2_u8;

#endif
