/* Sigmoid and tanh of a pre-activation, from one table [R6, R7, R8]: for AVRs, in 16 bits wherever a value fits them.
 */
#include "qg_half_tanh.h"

#if QG_KERNELS == QG_KERNELS_AVR

/* |t| at |a|, u16f16, rounded down: the floor drops only bits below the one that rounds. 0 <= a <= LIMIT, 14 fraction
 * bits. */
static uint16_t half_tanh_floor(int32_t a)
{
    const uint16_t upper = (uint16_t)(a >> 8);
    const uint16_t lower = (uint16_t)a;
    uint16_t fraction; /* u16f16 */
    const uint16_t *node;
    if (a < FINE_END) {
        node = half_tanh + (upper >> 1);
        fraction = (uint16_t)(lower << 7);
    } else {
        node = half_tanh + (upper >> 3) + 120; /* the node at 5 is 160 = (5 << 14 >> 11) + 120 */
        fraction = (uint16_t)(lower << 5);
    }
    const uint16_t low = QG_READ_U16(node);
    const uint16_t high = QG_READ_U16(node + 1);
    return (uint16_t)(low + (uint16_t)((uint32_t)(uint16_t)(high - low) * fraction >> 16));
}

QG_KERNEL uint16_t qg_sigmoid(int32_t a)
{
    const uint16_t t = half_tanh_floor(limited_magnitude(a, LIMIT));
    const uint16_t q = ((t >> 1) + 1) >> 1; /* (t + 2) >> 2 would need a 17th bit */
    return (uint16_t)(a < 0 ? 0x4000 - q : 0x4000 + q);
}

QG_KERNEL int16_t qg_tanh(int32_t a)
{
    /* Doubled, the limit is one below LIMIT, where t is the same: the last two nodes are equal. */
    const uint16_t t = half_tanh_floor(2 * limited_magnitude(a, LIMIT / 2));
    const int16_t q = (int16_t)(t < 2u * INT16_MAX ? (t + 1) >> 1 : INT16_MAX);
    return (int16_t)(a < 0 ? -q : q);
}

#endif
