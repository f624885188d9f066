/* Opens packed files, valid or not, and prints the status of each and the tensor at fault (-1: the file as a whole).
 *
 *     qxr_check_files < STREAM
 *
 * STREAM: for each file its size (u32, little-endian) and its bytes. Every file lies in memory of exactly its size, so
 * that a sanitizer sees the first byte read behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qxr.h"

/* Everything that can be asked of a model, refused or not. */
static void ask(const qxr_model *model)
{
    const uint8_t *metadata;
    size_t size;
    qxr_tensor_info info;
    for (uint32_t i = 0; i <= qxr_input_count(model); i++)
        (void)qxr_input_info(model, i, &info);
    for (uint32_t i = 0; i <= qxr_output_count(model); i++)
        (void)qxr_output_info(model, i, &info);
    for (uint32_t i = 0; i <= qxr_tensor_count(model); i++)
        (void)qxr_tensor_info_at(model, i, &info);
    (void)qxr_metadata(model, &metadata, &size);
}

/* What depends on no file. */
static void require_arguments(const uint8_t *bytes, size_t size)
{
    qxr_model model;
    if (qxr_open(NULL, size, &model) != QXR_ERROR_ARGUMENT || qxr_open(bytes, size, NULL) != QXR_ERROR_ARGUMENT)
        exit(3);
    if (qxr_open(bytes + 4, size - 4, &model) != QXR_ERROR_ALIGNMENT)
        exit(4);
}

int main(void)
{
    uint32_t size;
    while (fread(&size, sizeof size, 1, stdin) == 1) {
        uint8_t *bytes = malloc(size > 0 ? size : 1);
        qxr_model model;
        qxr_status status;
        if (bytes == NULL || fread(bytes, 1, size, stdin) != size)
            return 2;
        status = qxr_open(bytes, size, &model);
        ask(&model);
        if (size >= 4)
            require_arguments(bytes, size);
        printf("%d %d\n", (int)status, (int)model.failed_at);
        free(bytes);
    }
    return 0;
}
