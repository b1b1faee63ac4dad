/* The exact dot product, for AVRs that multiply 8 by 8 bits: in C, a product of 8 by 16 bits is one of 16 by 16, and a
 * call. */
#include "qg_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

QG_KERNEL int32_t qg_dot_strided(const int8_t *codes, uint8_t stride, uint16_t n_columns, const int16_t *x)
{
    /* In named registers: left to itself, the compiler saves 14 on the stack, instead of four. */
    register int32_t acc __asm__("r22") = 0;
    register int16_t value __asm__("r18");
    register int8_t weight __asm__("r20");
    register uint8_t sign __asm__("r21");
    const uint8_t zero = 0;
    __asm__ volatile("1:\n\t"
                     "lpm %[weight], Z\n\t"
                     "add r30, %[stride]\n\t"
                     "adc r31, %[zero]\n\t"
                     "ld %A[value], X+\n\t"
                     "ld %B[value], X+\n\t"
                     "mulsu %[weight], %A[value]\n\t" /* carry: the sign of the product */
                     "sbc %[sign], %[sign]\n\t"
                     "add %A[acc], r0\n\t"
                     "adc %B[acc], r1\n\t"
                     "adc %C[acc], %[sign]\n\t"
                     "adc %D[acc], %[sign]\n\t"
                     "muls %[weight], %B[value]\n\t"
                     "sbc %[sign], %[sign]\n\t"
                     "add %B[acc], r0\n\t"
                     "adc %C[acc], r1\n\t"
                     "adc %D[acc], %[sign]\n\t"
                     "subi %A[n_columns], 1\n\t"
                     "sbci %B[n_columns], 0\n\t"
                     "brne 1b\n\t"
                     "clr r1"
                     : [acc] "+&r"(acc), [codes] "+&z"(codes), [x] "+&x"(x), [n_columns] "+&d"(n_columns),
                       [value] "=&r"(value), [weight] "=&r"(weight), [sign] "=&r"(sign)
                     : [stride] "r"(stride), [zero] "r"(zero)
                     : "memory");
    return acc;
}

#endif
