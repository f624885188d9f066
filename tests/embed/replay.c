/* Samples from standard input through a generated network to standard output, as the bytes model_run takes and gives (numbers in the
 * order of this machine). The arena is filled with garbage before every run and watched behind its end. */
#include "model.h"

#include <stdio.h>
#include <string.h>

enum { GUARD = 64 };

static uint8_t arena[MODEL_ARENA_SIZE + GUARD] __attribute__((aligned(MODEL_ARENA_ALIGN)));
static uint8_t in[MODEL_INPUT_SIZE];
static int32_t out[MODEL_OUTPUT_SIZE];

int main(void)
{
    int i;
    if (model_run(arena + 1, in, out) != -1 || model_run(NULL, in, out) != -1 || model_run(arena, NULL, out) != -1)
        return 2;
    while (fread(in, sizeof in, 1, stdin) == 1) {
        memset(arena, 0xA5, sizeof arena);
        if (model_run(arena, in, out) != 0)
            return 3;
        for (i = 0; i < GUARD; i++)
            if (arena[MODEL_ARENA_SIZE + i] != 0xA5)
                return 4;
        fwrite(out, sizeof out, 1, stdout);
    }
    return 0;
}
