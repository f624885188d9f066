/* Timing and memory of the micro-benchmark. */
#ifndef QXR_TIMING_H
#define QXR_TIMING_H

#include <stddef.h>

#include "kernels.h"

/* Shortest time of one call in seconds, of repeated runs of some milliseconds; processor time, as the program has one
 * thread and others on the machine disturb that least. */
double qxr_time_call(void (*call)(void *argument), void *argument);

/* Aligned to 64 bytes, 64 bytes more than asked for. Exits where memory is short. */
void *qxr_take(size_t bytes);

/* operators.c: every row of the other operators, for the kernels this instruction set has itself. Returns failures. */
int qxr_visit_operators(const qxr_isa *isa, int check, const char *only);

#endif
