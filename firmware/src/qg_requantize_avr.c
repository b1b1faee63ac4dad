/* Requantization, for AVRs that multiply 8 by 8 bits. */
#include "qg_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

/* [R4] for a = acc 2^k. Each byte of the product takes the place of the byte of a that it was the last to need; the two
 * lowest count for their carry only. `high` and the lower byte of m are where mulsu can read them. */
QG_KERNEL int32_t qg_requantize_avr(int32_t a, uint16_t m, uint8_t s)
{
    uint8_t carry;
    int8_t high;
    __asm__("mov %[high], %D[a]\n\t"
            "mul %A[a], %A[m]\n\t"
            "mov %[carry], r1\n\t"
            "mul %A[a], %B[m]\n\t"
            "clr %A[a]\n\t"
            "add %[carry], r0\n\t"
            "adc %A[a], r1\n\t"
            "mul %B[a], %A[m]\n\t"
            "add %[carry], r0\n\t"
            "adc %A[a], r1\n\t"
            "clr %[carry]\n\t"
            "rol %[carry]\n\t"
            "mul %B[a], %B[m]\n\t"
            "mov %B[a], r1\n\t"
            "add %A[a], r0\n\t"
            "adc %B[a], %[carry]\n\t"
            "mul %C[a], %A[m]\n\t"
            "add %A[a], r0\n\t"
            "adc %B[a], r1\n\t"
            "clr %[carry]\n\t"
            "rol %[carry]\n\t"
            "mul %C[a], %B[m]\n\t"
            "mov %C[a], r1\n\t"
            "add %B[a], r0\n\t"
            "adc %C[a], %[carry]\n\t"
            "mulsu %[high], %A[m]\n\t"
            "sbc %[carry], %[carry]\n\t"
            "add %B[a], r0\n\t"
            "adc %C[a], r1\n\t"
            "clr r0\n\t"
            "adc %[carry], r0\n\t"
            "muls %D[a], %B[m]\n\t" /* m < 2^15: its upper byte has no sign */
            "mov %D[a], r1\n\t"
            "add %C[a], r0\n\t"
            "adc %D[a], %[carry]\n\t"
            /* a >> s, first by bytes. The last bit that leaves is the one that rounds. */
            "rjmp 2f\n"
            "1:\n\t"
            "mov r0, %A[a]\n\t"
            "mov %A[a], %B[a]\n\t"
            "mov %B[a], %C[a]\n\t"
            "mov %C[a], %D[a]\n\t"
            "lsl %D[a]\n\t"
            "sbc %D[a], %D[a]\n"
            "2:\n\t"
            "subi %[s], 8\n\t"
            "brsh 1b\n\t"
            "subi %[s], -8\n\t" /* 0 ... 7 bits are left */
            "breq 4f\n"
            "3:\n\t"
            "asr %D[a]\n\t"
            "ror %C[a]\n\t"
            "ror %B[a]\n\t"
            "ror %A[a]\n\t"
            "ror r0\n\t"
            "dec %[s]\n\t"
            "brne 3b\n"
            "4:\n\t"
            "lsl r0\n\t"
            "clr r1\n\t"
            "adc %A[a], r1\n\t"
            "adc %B[a], r1\n\t"
            "adc %C[a], r1\n\t"
            "adc %D[a], r1"
            : [a] "+&d"(a), [s] "+&d"(s), [carry] "=&r"(carry), [high] "=&a"(high)
            : [m] "a"(m));
    return a;
}

#endif
