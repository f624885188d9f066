/* The two functions of the C library that the runtime uses; the compiler makes instructions of them (memory.copy,
 * memory.fill) or takes its own. */
#ifndef QXR_WASM_STRING_H
#define QXR_WASM_STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);

#endif
