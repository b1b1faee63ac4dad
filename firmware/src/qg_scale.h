/* The scale of a row [R4] from one byte. */
#ifndef QG_SCALE_H
#define QG_SCALE_H

#include <stdint.h>

/* a m / 2^(16 + s) */
typedef struct qg_scale {
    uint16_t m;
    uint8_t s;
} qg_scale;

/* m has six bits that can differ from zero, the first of which is one; see qg_matrix. */
static inline qg_scale qg_from_short_scale(uint8_t byte, uint8_t first_shift)
{
    const qg_scale scale = {(uint16_t)((32 + byte % 32) << 9), (uint8_t)(first_shift + byte / 32)};
    return scale;
}

#endif
