/* Convolutions of AVX-512 VNNI that have files of their own. */
#ifndef QXR_AVX512VNNI_H
#define QXR_AVX512VNNI_H

#include "x86/avx2.h"

/* Needs VPOPCNTDQ, too. */
extern const qxr_conv_kernel qxr_avx512vnni_bits;

#endif
