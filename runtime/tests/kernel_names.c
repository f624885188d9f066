/* Prints the kernel that each convolution of a .qpk file runs on, one a line, with the best instruction set.
 *
 *     qxr_kernel_names MODEL.qpk */
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"

static _Alignas(8) uint8_t bytes[1 << 20];

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    qxr_model model;
    size_t size;
    if (!file)
        return 2;
    size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    if (qxr_open(bytes, size, &model) != QXR_OK || qxr_select_isa(&model, NULL) != QXR_OK)
        return 1;
    for (uint32_t k = 0; k < qxr_get_header(&model)->op_count; k++) {
        qxr_conv conv;
        if (qxr_get_op(&model, k)->opcode != QXR_CONV2D)
            continue;
        qxr_describe_conv(&model, k, &conv);
        puts(qxr_choose_conv(qxr_model_isa(&model), &conv)->name);
    }
    return 0;
}
