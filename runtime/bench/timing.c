#include "timing.h"

#include <stdlib.h>
#include <time.h>

enum { REPEATS = 7 };

static const double SECONDS_PER_REPEAT = 0.02;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double qxr_time_call(void (*call)(void *argument), void *argument)
{
    double best = 1e30;
    for (int i = 0; i < REPEATS; i++) {
        const double start = now();
        double end;
        unsigned runs = 0;
        do {
            call(argument);
            runs++;
            end = now();
        } while (end - start < SECONDS_PER_REPEAT);
        if ((end - start) / runs < best)
            best = (end - start) / runs;
    }
    return best;
}

void *qxr_take(size_t bytes)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes + 64u) != 0)
        exit(2);
    return memory;
}
