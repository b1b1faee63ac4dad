/* The integer primitives of SPEC.md, chapter 2. Everything else in the library is made of these. */
#ifndef QG_FIXED_H
#define QG_FIXED_H

#include <stdint.h>

/* C leaves both to the compiler: right shifts of negative numbers must be arithmetic, and an unsigned number beyond the
 * int32_t wraps around. A target where one of these arrays has a negative size cannot run the library. */
typedef char qg_needs_arithmetic_right_shift[((int32_t)-3 >> 1) == -2 ? 1 : -1];
typedef char qg_needs_twos_complement[(int32_t)0xfffffffeu == -2 ? 1 : -1];

/* [R1] v / 2^s, rounded to nearest, ties up. 1 <= s <= 30, v <= 2^31 - 1 - 2^(s-1). */
static inline int32_t qg_round_shift(int32_t v, uint8_t s)
{
    return ((v >> (s - 1)) + 1) >> 1; /* the half is 1 once all bits below it have gone */
}

/* [R2] v limited to an int16_t. */
static inline int16_t qg_saturate16(int32_t v)
{
    if (v > INT16_MAX) {
        return INT16_MAX;
    }
    if (v < INT16_MIN) {
        return INT16_MIN;
    }
    return (int16_t)v;
}

/* [R3] floor(a m / 2^16), any a, 0 <= m <= 2^15 - 1. The low half is unsigned: its product is below 2^31. */
static inline int32_t qg_mul_shift16(int32_t a, uint16_t m)
{
    const int32_t high = (int32_t)(int16_t)(a >> 16) * (int32_t)m;
    const uint32_t low = ((uint32_t)(uint16_t)a * m) >> 16;
    return high + (int32_t)low;
}

/* [R4] acc 2^k m / 2^(16+s), rounded to nearest, ties up. The model proves |acc| 2^k < 2^31. */
static inline int32_t qg_requantize(int32_t acc, uint8_t k, uint16_t m, uint8_t s)
{
    return qg_round_shift(qg_mul_shift16((int32_t)((uint32_t)acc << k), m), s);
}

/* [R5] b r / 2^15, rounded to nearest, ties up; 0 <= r <= 2^15. Split, for r = 2^15 is no int16_t and b r no int32_t.
 */
static inline int32_t qg_reset_product(int32_t b, uint16_t r)
{
    return (b >> 15) * (int32_t)r + (int32_t)(((uint32_t)(b & 0x7fff) * r + 0x4000u) >> 15);
}

#endif
