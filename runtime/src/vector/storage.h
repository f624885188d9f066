/* Tiles between the arena and the slots: what every vector instruction set shares. */
#ifndef QXR_STORAGE_H
#define QXR_STORAGE_H

#include "kernels.h"

/* Neighbouring elements, stored from `at` on, in whole vectors; returns how many. What they leave is done in portable
 * C. */
typedef size_t qxr_load_vectors(const qxr_tensor *tensor, const uint8_t *at, size_t count, int32_t *x);
typedef size_t qxr_store_vectors(const qxr_tensor *tensor, uint8_t *at, size_t count, const int32_t *y);

void qxr_load_tile(const qxr_tensor *tensor, const uint8_t *data, const qxr_tile *tile, qxr_load_vectors *load,
                   int32_t *x);
void qxr_store_tile(const qxr_tensor *tensor, uint8_t *data, const qxr_tile *tile, qxr_store_vectors *store,
                    const int32_t *y);

#endif
