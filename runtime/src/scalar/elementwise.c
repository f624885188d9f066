/* Elementwise operators in portable C. */
#include "scalar/scalar.h"

void qxr_scalar_border_bias(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const uint32_t channels = work->out->extent[0], height = work->out->extent[1], width = work->out->extent[2];
    const uint32_t column_classes = (uint32_t)work->op->second;
    const int32_t *values = qxr_constants32(work);
    const uint8_t *rows = (const uint8_t *)(values + (size_t)work->op->first * column_classes * channels);
    const uint8_t *columns = rows + height;
    const int32_t *x = work->x[0];
    for (uint32_t p = 0; p < tile->pixels; p++) {
        const uint32_t pixel = tile->pixel + p;
        const size_t class = (size_t)rows[pixel / width] * column_classes + columns[pixel % width];
        const int32_t *bias = values + class * channels + tile->channel;
        for (uint32_t c = 0; c < tile->channels; c++)
            y[c] = qxr_wrap_add(x[c], bias[c]);
        x += tile->channels;
        y += tile->channels;
    }
}

/* Number of thresholds that x reaches; they ascend. */
static uint32_t code_of(const qxr_steps *s, const int32_t *thresholds, int32_t x)
{
    const size_t stride = s->stride ? s->stride : 1u;
    uint32_t first = 0, last = s->count;
    while (first < last) {
        const uint32_t middle = first + (last - first) / 2u;
        if (x >= thresholds[middle * stride])
            first = middle + 1u;
        else
            last = middle;
    }
    return first;
}

void qxr_scalar_threshold(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_steps s = qxr_read_steps(work, tile);
    const int32_t *x = work->x[0];
    for (uint32_t p = 0; p < tile->pixels; p++) {
        for (uint32_t c = 0; c < tile->channels; c++) {
            const int32_t v = qxr_is_negative(&s, tile->channel + c) ? (int32_t)(0u - (uint32_t)x[c]) : x[c];
            const uint32_t code = code_of(&s, s.stride ? s.thresholds + c : s.thresholds, v);
            y[c] = s.levels ? s.levels[code] : qxr_wrap_add(s.first, qxr_wrap_mul((int32_t)code, s.step));
        }
        x += tile->channels;
        y += tile->channels;
    }
}

void qxr_scalar_rescale(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const qxr_op *op = work->op;
    const uint32_t channels = op->flags & QXR_PER_CHANNEL ? work->out->extent[0] : 1u;
    const uint32_t first = channels > 1u ? tile->channel : 0u, step = channels > 1u;
    const int64_t *addend = (const int64_t *)(const void *)qxr_constants(work);
    const int32_t *multiplier = (const int32_t *)(addend + channels) + first;
    const int32_t *x = work->x[0];
    addend += first;
    for (uint32_t p = 0; p < tile->pixels; p++) {
        for (uint32_t c = 0; c < tile->channels; c++) {
            /* |x m| <= 2^62 - 2^31 and |addend| <= 2^62. The shift of a negative number is arithmetic on every
             * compiler this builds with; kernel tests would show another. */
            const int64_t v = ((int64_t)x[c] * multiplier[c * step] + addend[c * step]) >> op->parameter;
            y[c] = (int32_t)(v < op->first ? op->first : v > op->second ? op->second : v);
        }
        x += tile->channels;
        y += tile->channels;
    }
}

void qxr_scalar_add(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const size_t count = (size_t)tile->pixels * tile->channels;
    for (size_t i = 0; i < count; i++)
        y[i] = qxr_wrap_add(work->x[0][i], work->x[1][i]);
}

void qxr_scalar_clip(const qxr_work *work, const qxr_tile *tile, int32_t *y)
{
    const size_t count = (size_t)tile->pixels * tile->channels;
    const int32_t lo = work->op->first, hi = work->op->second;
    for (size_t i = 0; i < count; i++) {
        const int32_t v = work->x[0][i];
        y[i] = v < lo ? lo : v > hi ? hi : v;
    }
}
