/* What the files of AVX-512 VNNI share. */
#ifndef QXR_AVX512VNNI_H
#define QXR_AVX512VNNI_H

#include "x86/avx2.h"

/* The first needs VPOPCNTDQ, too. */
extern const qxr_conv_kernel qxr_avx512vnni_bits, qxr_avx512vnni_winograd;

/* Products of bytes: 8 pixels x 32 channels, so that 16 accumulators hide the latency of the instruction; two weights
 * and an input beside them. */
enum { QXR_AVX512VNNI_ROWS = 8, QXR_AVX512VNNI_BLOCK = 32 };
void qxr_avx512vnni_product(const qxr_product *product);

#endif
