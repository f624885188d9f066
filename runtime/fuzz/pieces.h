/* A packed file taken apart, so that the mutator changes one thing and offsets, sizes and checksum follow. */
#ifndef QXR_FUZZ_PIECES_H
#define QXR_FUZZ_PIECES_H

#include "format.h"

enum { MAX_PIECES = 48, POOL = 1 << 16 };

/* Bytes within `pool`. */
typedef struct blob {
    uint32_t offset, size;
} blob;

typedef struct pieces {
    qxr_header header;
    uint32_t tensor_count, op_count, input_count, output_count;
    qxr_tensor tensors[MAX_PIECES];
    qxr_op ops[MAX_PIECES];
    uint16_t outputs[MAX_PIECES];
    blob ranges[MAX_PIECES], constants[MAX_PIECES], metadata;
    uint32_t used;
    _Alignas(16) uint8_t pool[POOL]; /* every blob at a multiple of 16, as in the file */
} pieces;

/* Takes a file apart; 0 where its sections lie outside it or are too large for the mutator. */
int pieces_parse(pieces *p, const uint8_t *data, size_t size);

/* Puts it together again with right counts, offsets, sizes and checksum. Returns the size; 0 without enough room. */
size_t pieces_emit(const pieces *p, uint8_t *data, size_t room);

/* A new blob: `size` bytes, zero at first; size 0 where the pool is full. */
blob pieces_new(pieces *p, uint32_t size);

/* Puts the right checksum into a file of at least 64 bytes. */
void seal(uint8_t *data, size_t size);

/* Makes a refused file more like a valid one, guided by the status and the tensor it was refused for. Returns 0
 * where it cannot. */
int pieces_repair(pieces *p, qxr_status status, uint32_t at);

/* The bytes of constants an operator asks for; 0 where they are more than 64 KiB. */
uint32_t constants_wanted(const pieces *p, uint32_t op);

#endif
