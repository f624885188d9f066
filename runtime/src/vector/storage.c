/* Tiles between the arena and the slots, run by run. */
#include "vector/storage.h"

#include "scalar/scalar.h"

/* Elements of a tile that are neighbours both in the tile and in the tensor: all of it, or those of one pixel. */
static size_t run_length(const qxr_tensor *tensor, const qxr_tile *tile)
{
    return tile->channels == tensor->extent[0] ? (size_t)tile->pixels * tile->channels : tile->channels;
}

void qxr_load_tile(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, qxr_load_vectors *load,
                   int32_t *x)
{
    const size_t all = (size_t)tile->pixels * tile->channels, run = run_length(tensor, tile);
    size_t first = (size_t)tile->pixel * tensor->extent[0] + tile->channel;
    for (size_t done = 0; done < all; done += run, first += tensor->extent[0]) {
        const size_t vectors = load(tensor, data + first * qxr_element_bytes(tensor), run, x + done);
        qxr_scalar_load_run(tensor, data, first + vectors, run - vectors, x + done + vectors);
    }
}

void qxr_store_tile(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, qxr_store_vectors *store,
                    const int32_t *y)
{
    const size_t all = (size_t)tile->pixels * tile->channels, run = run_length(tensor, tile);
    size_t first = (size_t)tile->pixel * tensor->extent[0] + tile->channel;
    for (size_t done = 0; done < all; done += run, first += tensor->extent[0]) {
        const size_t vectors = store(tensor, data + first * qxr_element_bytes(tensor), run, y + done);
        qxr_scalar_store_run(tensor, data, first + vectors, run - vectors, y + done + vectors);
    }
}
