/* Sigmoid and tanh of a pre-activation, from one table [R6, R7, R8]. */
#include "qg_half_tanh.h"

#if QG_KERNELS != QG_KERNELS_AVR

/* |t| at |a|, 27 fraction bits, below 2^27. 0 <= a <= LIMIT, 14 fraction bits. */
static inline int32_t half_tanh_q27(int32_t a)
{
    int32_t fraction;
    const uint16_t *node;
    if (a < FINE_END) {
        node = half_tanh + (a >> 9);
        fraction = (a & 0x1ff) << 2;
    } else {
        node = half_tanh + (a >> 11) + 120; /* the node at 5 is 160 = (5 << 14 >> 11) + 120 */
        fraction = a & 0x7ff;
    }
    const int32_t low = QG_READ_U16(node);
    const int32_t high = QG_READ_U16(node + 1);
    return (low << 11) + (high - low) * fraction;
}

QG_KERNEL uint16_t qg_sigmoid(int32_t a)
{
    const int32_t q = (half_tanh_q27(limited_magnitude(a, LIMIT)) + 0x1000) >> 13;
    return (uint16_t)(a < 0 ? 0x4000 - q : 0x4000 + q);
}

QG_KERNEL int16_t qg_tanh(int32_t a)
{
    /* Doubled, the limit is one below LIMIT, where t is the same: the last two nodes are equal. */
    const int32_t t = (half_tanh_q27(2 * limited_magnitude(a, LIMIT / 2)) + 0x800) >> 12;
    const int32_t q = t < INT16_MAX ? t : INT16_MAX;
    return (int16_t)(a < 0 ? -q : q);
}

#endif
