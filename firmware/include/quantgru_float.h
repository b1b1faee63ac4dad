/* A raw input from a float: the one place where the firmware touches floating point, and only if it is included. */
#ifndef QUANTGRU_FLOAT_H
#define QUANTGRU_FLOAT_H

#include <stdint.h>

/* [R15] v rounded to the nearest int16_t, ties up, saturated; NaN becomes 0. v is the real value times
 * 2^fraction_bits, which a float holds exactly. */
static inline int16_t qg_raw_from_float(float v)
{
    if (v >= (float)INT16_MAX) {
        return INT16_MAX;
    }
    if (v <= (float)INT16_MIN) {
        return INT16_MIN;
    }
    if (v != v) {
        return 0;
    }
    const int16_t towards_zero = (int16_t)v;
    const float rest = v - (float)towards_zero; /* exact; adding one half to v instead could round */
    if (rest >= 0.5f) {
        return (int16_t)(towards_zero + 1);
    }
    if (rest < -0.5f) {
        return (int16_t)(towards_zero - 1);
    }
    return towards_zero;
}

#endif
