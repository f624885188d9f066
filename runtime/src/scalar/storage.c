/* Tiles between the arena and the slots, in portable C. */
#include "scalar/scalar.h"

#include <string.h>

void qxr_scalar_load_run(const qxr_tensor *tensor, const uint8_t *data, size_t first, size_t count, int32_t *x)
{
    const int32_t base = qxr_base(tensor);
    const void *at = data + first * qxr_element_bytes(tensor);
    switch (qxr_storage(tensor)) {
    case QXR_U8:
        for (size_t i = 0; i < count; i++)
            x[i] = ((const uint8_t *)at)[i] + base;
        break;
    case QXR_I16:
        for (size_t i = 0; i < count; i++)
            x[i] = ((const int16_t *)at)[i];
        break;
    default:
        memcpy(x, at, count * sizeof *x);
        break;
    }
}

void qxr_scalar_store_run(const qxr_tensor *tensor, uint8_t *data, size_t first, size_t count, const int32_t *y)
{
    const int32_t base = qxr_base(tensor);
    void *at = data + first * qxr_element_bytes(tensor);
    switch (qxr_storage(tensor)) {
    case QXR_U8:
        for (size_t i = 0; i < count; i++)
            ((uint8_t *)at)[i] = (uint8_t)((uint32_t)y[i] - (uint32_t)base);
        break;
    case QXR_I16:
        for (size_t i = 0; i < count; i++)
            ((int16_t *)at)[i] = (int16_t)y[i];
        break;
    default:
        memcpy(at, y, count * sizeof *y);
        break;
    }
}

void qxr_scalar_load(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, int32_t *x)
{
    for (uint32_t p = 0; p < tile->pixels; p++)
        qxr_scalar_load_run(tensor, data, (size_t)(tile->pixel + p) * tensor->extent[0] + tile->channel,
                            tile->channels, x + (size_t)p * tile->channels);
}

void qxr_scalar_store(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, const int32_t *y)
{
    for (uint32_t p = 0; p < tile->pixels; p++)
        qxr_scalar_store_run(tensor, data, (size_t)(tile->pixel + p) * tensor->extent[0] + tile->channel,
                             tile->channels, y + (size_t)p * tile->channels);
}

void qxr_scalar_interleave(const uint8_t *planes, size_t pixels, uint8_t *to)
{
    for (size_t p = 0; p < pixels; p++)
        for (size_t c = 0; c < 3u; c++)
            to[3u * p + c] = planes[c * pixels + p];
}
