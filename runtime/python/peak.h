/* How fast an instruction set multiplies bytes at best. */
#ifndef QXR_PYTHON_PEAK_H
#define QXR_PYTHON_PEAK_H

#include <stdint.h>

/* Multiplies and adds at least that many times with the kernel of an instruction set that this processor has; returns how
 * many it was, 0 where there is no kernel. The caller holds the watch. */
uint64_t peak_products(const char *isa, uint64_t least);

#endif
