/* What the SIMD128 kernels for packed codes share. */
#ifndef QXR_SIMD128_CODES_H
#define QXR_SIMD128_CODES_H

#include <wasm_simd128.h>

#include "vector/codes.h"
#include "wasm/simd128.h"

size_t qxr_simd128_pack_codes(const qxr_code_form *form, const uint8_t *codes, size_t count, uint8_t *to);

#endif
