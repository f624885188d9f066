/* Instructions of the C runtime's portable kernels for the test vector of a generated network, whose outputs they must equal. */
#include "qxr.h"

#include "model_test.c"
#include "network.h"
#include "timer.h"

#include <stdio.h>

static uint8_t arena[128 * 1024] __attribute__((aligned(64)));
static int32_t out[MODEL_OUTPUT_SIZE];

/* What model_test.c calls, with the runtime in the place of the generated network. */
int model_run(void *memory, const uint8_t *in, int32_t *to)
{
    static qxr_model model;
    if (qxr_open(network, sizeof network, &model) != QXR_OK)
        return -1;
    return qxr_run(&model, memory, sizeof arena, &in, &to, NULL) == QXR_OK ? 0 : -1;
}

int main(void)
{
    const uint32_t start = start_counting();
    const int result = model_test(arena, out);
    const uint32_t count = instructions_since(start);
    printf("%lu instructions\n", (unsigned long)count);
    return result != 0 || count == 0u;
}
