/* The AMX intrinsics that qxr uses, in portable C, so that its kernels can be tested on any processor. As the
 * instructions do, they use one set of tile registers a thread and refuse to work without a configuration. */
#ifndef QXR_EMULATE_AMX_H
#define QXR_EMULATE_AMX_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct emulate_amx_state {
    uint8_t configured;
    uint8_t rows[8];
    uint16_t row_bytes[8];
    uint8_t data[8][16][64];
} emulate_amx_state;

static _Thread_local emulate_amx_state emulate_amx;

/* Stops the program where the processor would raise a fault. */
static inline void emulate_amx_require(int condition)
{
    if (!condition)
        __builtin_trap();
}

static inline void emulate_amx_loadconfig(const void *config)
{
    const uint8_t *bytes = (const uint8_t *)config;
    memset(&emulate_amx, 0, sizeof emulate_amx);
    emulate_amx_require(bytes[0] == 1 && bytes[1] == 0);
    memcpy(emulate_amx.row_bytes, bytes + 16, sizeof emulate_amx.row_bytes);
    memcpy(emulate_amx.rows, bytes + 48, sizeof emulate_amx.rows);
    for (int t = 0; t < 8; t++)
        emulate_amx_require(emulate_amx.rows[t] <= 16 && emulate_amx.row_bytes[t] <= 64);
    emulate_amx.configured = 1;
}

static inline void emulate_amx_release(void) { memset(&emulate_amx, 0, sizeof emulate_amx); }

static inline void emulate_amx_zero(int t)
{
    emulate_amx_require(emulate_amx.configured && emulate_amx.rows[t]);
    memset(emulate_amx.data[t], 0, sizeof emulate_amx.data[t]);
}

static inline void emulate_amx_loadd(int t, const void *base, size_t stride)
{
    emulate_amx_zero(t);
    for (size_t r = 0; r < emulate_amx.rows[t]; r++)
        memcpy(emulate_amx.data[t][r], (const uint8_t *)base + r * stride, emulate_amx.row_bytes[t]);
}

static inline void emulate_amx_stored(int t, void *base, size_t stride)
{
    emulate_amx_require(emulate_amx.configured && emulate_amx.rows[t]);
    for (size_t r = 0; r < emulate_amx.rows[t]; r++)
        memcpy((uint8_t *)base + r * stride, emulate_amx.data[t][r], emulate_amx.row_bytes[t]);
}

/* sums[m][n] += sum over four of unsigned a[m][k] times signed b[k][n] */
static inline void emulate_amx_dpbusd(int sums, int a, int b)
{
    const uint32_t steps = emulate_amx.row_bytes[a] / 4u;
    emulate_amx_require(emulate_amx.configured && emulate_amx.rows[sums] == emulate_amx.rows[a] &&
                        emulate_amx.row_bytes[sums] == emulate_amx.row_bytes[b] && emulate_amx.rows[b] == steps);
    for (uint32_t m = 0; m < emulate_amx.rows[sums]; m++)
        for (uint32_t n = 0; n < emulate_amx.row_bytes[sums] / 4u; n++) {
            uint32_t sum;
            memcpy(&sum, &emulate_amx.data[sums][m][4u * n], 4);
            for (uint32_t k = 0; k < steps; k++)
                for (uint32_t i = 0; i < 4u; i++)
                    sum += (uint32_t)(emulate_amx.data[a][m][4u * k + i] *
                                      (int32_t)(int8_t)emulate_amx.data[b][k][4u * n + i]);
            memcpy(&emulate_amx.data[sums][m][4u * n], &sum, 4);
        }
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#undef _tile_release
#define _tile_loadd(t, base, stride) emulate_amx_loadd(t, base, stride)
#define _tile_stored(t, base, stride) emulate_amx_stored(t, base, stride)
#define _tile_dpbusd(sums, a, b) emulate_amx_dpbusd(sums, a, b)
#define _tile_release() emulate_amx_release()

#endif
