/* The self-check, and how many instructions it takes. */
#include "model.h"
#include "model_test.h"
#include "timer.h"

#include <stdio.h>

static uint8_t arena[MODEL_ARENA_SIZE] __attribute__((aligned(MODEL_ARENA_ALIGN)));
static int32_t out[MODEL_OUTPUT_SIZE];

int main(void)
{
    const uint32_t start = start_counting();
    const int result = model_test(arena, out);
    const uint32_t count = instructions_since(start);
    printf("%lu instructions\n", (unsigned long)count);
    return result != 0 || count == 0u;
}
