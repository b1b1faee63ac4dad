/* Codes of less than 8 bits: a column of a block has as many bytes as a code has bits; see qg_section. */
#ifndef QG_PACKED_H
#define QG_PACKED_H

#include "quantgru.h"

/* n bytes, 1 ... 4, the first one lowest. n is a constant of the caller: a load, where the target can do it. */
static inline uint32_t qg_packed_bytes(const int8_t *bytes, uint8_t n)
{
    uint32_t word = (uint8_t)QG_READ_S8(bytes);
    if (n > 1) {
        word |= (uint32_t)(uint8_t)QG_READ_S8(bytes + 1) << 8;
    }
    if (n > 2) {
        word |= (uint32_t)(uint8_t)QG_READ_S8(bytes + 2) << 16;
    }
    if (n > 3) {
        word |= (uint32_t)(uint8_t)QG_READ_S8(bytes + 3) << 24;
    }
    return word;
}

/* The code that begins with bit `first` of a word; first + bits <= 32. */
static inline int32_t qg_packed_code(uint32_t word, uint8_t first, uint8_t bits)
{
    return (int32_t)(word << (32 - first - bits)) >> (32 - bits);
}

/* A kernel for each width, made of `dot_block` of the including file: void(codes, bits, n_columns, x, dots). What the
 * linker leaves out of an image is what lies in sections of its own (-ffunction-sections). */
#define QG_PACKED_KERNEL(width, dot_block)                                                                             \
    QG_KERNEL void qg_dot_block_##width(const int8_t *codes, uint16_t n_columns, const int16_t *x,                     \
                                        int32_t dots[QG_BLOCK_ROWS])                                                   \
    {                                                                                                                  \
        dot_block(codes, width, n_columns, x, dots);                                                                   \
    }

#endif
