/* What the NEON kernels for packed codes share. */
#ifndef QXR_NEON_CODES_H
#define QXR_NEON_CODES_H

#include <arm_neon.h>

#include "arm/neon.h"
#include "vector/codes.h"

/* Loops over the pixels of a product are unrolled, so that sums stay in registers: `pixels` is constant in each use. */
#define QXR_CODE_INLINE static inline __attribute__((always_inline))
#define QXR_CODE_PIXEL(q) _Pragma("GCC unroll 4") for (uint32_t q = 0; q < pixels; q++)

size_t qxr_neon_pack_codes(const qxr_code_form *form, const uint8_t *codes, size_t count, uint8_t *to);

#endif
