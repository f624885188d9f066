/* Counting instructions: under `qemu -icount shift=0` an instruction lasts one nanosecond, and the board's timer counts at
 * TIMER_MHZ. */
#ifndef TIMER_H
#define TIMER_H

#include <stdint.h>

#define TIMER ((volatile uint32_t *)0xE000E010)
enum { LARGEST_COUNT = 0xFFFFFF, ENABLE = 5, WRAPPED = 1 << 16 };

/* Starts the timer; it counts down. */
static inline uint32_t start_counting(void)
{
    TIMER[1] = LARGEST_COUNT;
    TIMER[2] = 0;
    TIMER[0] = ENABLE;
    return TIMER[2];
}

/* Instructions since then, or 0 if there were too many to count. */
static inline uint32_t instructions_since(uint32_t start)
{
    const uint32_t end = TIMER[2];
    return TIMER[0] & WRAPPED ? 0u : (uint32_t)((uint64_t)((start - end) & LARGEST_COUNT) * 1000u / TIMER_MHZ);
}

#endif
