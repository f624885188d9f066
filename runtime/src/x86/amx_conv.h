/* Convolutions with AMX tiles, whatever form their weights have. */
#ifndef QXR_AMX_CONV_H
#define QXR_AMX_CONV_H

#include "x86/amx_epilogue.h"

extern const qxr_row_kernel qxr_amx_rows;

/* Where the packed weights lie. */
typedef struct qxr_amx_packing {
    qxr_rows_layout layout; /* as bytes */
    size_t codes_bytes;     /* of one block as codes, or 0 */
    size_t sums;            /* offset of i32 sums[group][block][channel] */
} qxr_amx_packing;

/* Where a tile goes: one of three. */
typedef struct qxr_amx_result {
    int32_t *y;
    int16_t *words;
    const qxr_epilogue *epilogue;
    size_t stride;
} qxr_amx_result;

void qxr_amx_tile(const qxr_conv *conv, const qxr_amx_packing *k, const qxr_conv_buffers *buffers, const qxr_tile *tile,
                  const qxr_amx_result *y);

#endif
