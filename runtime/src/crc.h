/* CRC-32 of IEEE 802.3, as in zlib. */
#ifndef QXR_CRC_H
#define QXR_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Continues a checksum; 0 starts one. */
uint32_t qxr_crc32(uint32_t crc, const uint8_t *bytes, size_t size);

#endif
