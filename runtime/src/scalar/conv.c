/* Convolution in portable C, straight from the rows of the file. */
#include "scalar/scalar.h"

#include <string.h>

enum { RUN = 128 }; /* weights of a row that are unpacked at once */

static uint32_t dot(const qxr_tensor *in, const uint8_t *data, size_t first, const int32_t *weights, uint32_t count,
                    int32_t base)
{
    const void *at = data + first * qxr_element_bytes(in);
    uint32_t sum = 0;
    switch (qxr_storage(in)) {
    case QXR_U8:
        for (uint32_t i = 0; i < count; i++)
            sum += (uint32_t)weights[i] * (uint32_t)(((const uint8_t *)at)[i] + base);
        break;
    case QXR_I16:
        for (uint32_t i = 0; i < count; i++)
            sum += (uint32_t)weights[i] * (uint32_t)((const int16_t *)at)[i];
        break;
    default:
        for (uint32_t i = 0; i < count; i++)
            sum += (uint32_t)weights[i] * ((const uint32_t *)at)[i];
        break;
    }
    return sum;
}

/* Weights [k, k + count) of a row times the inputs under them, for the window of one output pixel. A row runs through
 * the taps, and through the group's channels within a tap; padding contributes nothing. */
static uint32_t part_of_window(const qxr_conv *conv, const uint8_t *data, uint32_t pixel, uint32_t channel, uint32_t k,
                               uint32_t count, const int32_t *weights)
{
    const qxr_tensor *in = conv->in;
    const qxr_op *op = conv->op;
    const uint32_t row = pixel / conv->out->extent[2], column = pixel % conv->out->extent[2];
    uint32_t tap = k / conv->group_in, offset = k % conv->group_in, sum = 0;
    for (uint32_t done = 0; done < count; tap++) {
        const uint32_t run = qxr_min(conv->group_in - offset, count - done);
        const uint32_t in_row = qxr_input_at(op, 0, row, tap / op->window[1]);
        const uint32_t in_column = qxr_input_at(op, 1, column, tap % op->window[1]);
        if (in_row < in->extent[1] && in_column < in->extent[2]) {
            const size_t first = ((size_t)in_row * in->extent[2] + in_column) * in->extent[0] + channel + offset;
            sum += dot(in, data, first, weights + done, run, conv->base);
        }
        done += run;
        offset = 0;
    }
    return sum;
}

static void conv_tile(const qxr_conv *conv, const qxr_conv_buffers *buffers, const qxr_tile *tile, int32_t *y)
{
    int32_t weights[RUN];
    memset(y, 0, (size_t)tile->pixels * tile->channels * sizeof *y);
    for (uint32_t c = 0; c < tile->channels; c++) {
        const uint32_t o = tile->channel + c, channel = o / conv->group_out * conv->group_in;
        for (uint32_t k = 0; k < conv->row; k += RUN) {
            const uint32_t count = qxr_min(RUN, conv->row - k);
            qxr_weight_values(&conv->weights, o, k, count, weights);
            for (uint32_t p = 0; p < tile->pixels; p++) {
                int32_t *acc = y + (size_t)p * tile->channels + c;
                *acc = (int32_t)((uint32_t)*acc + part_of_window(conv, buffers->input, tile->pixel + p, channel, k,
                                                                 count, weights));
            }
        }
    }
}

static int suits(const qxr_conv *conv)
{
    (void)conv;
    return 1;
}

static size_t no_bytes(const qxr_conv *conv)
{
    (void)conv;
    return 0;
}

const qxr_conv_kernel qxr_scalar_conv_kernel = {"scalar", suits, no_bytes, NULL, no_bytes, conv_tile, NULL, 0};
