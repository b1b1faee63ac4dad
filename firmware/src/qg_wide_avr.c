/* The exact dot product of a row that lies in a section of 16-bit codes, for AVRs: four products of 8 by 8 bits. */
#include "qg_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

/* Of n_columns codes, `stride` bytes from the end of one to the next, with x. |code x| <= 2^15 2^15. */
static int32_t dot_of_words(const int16_t *codes, uint8_t stride, uint16_t n_columns, const int16_t *x)
{
    register int32_t acc __asm__("r22") = 0;
    register int16_t value __asm__("r18");
    register int16_t code __asm__("r20");
    const int16_t *const end = x + n_columns;
    const uint8_t zero = 0;
    uint8_t sign;
    __asm__ volatile("1:\n\t"
                     "lpm %A[code], Z+\n\t"
                     "lpm %B[code], Z+\n\t"
                     "add r30, %[stride]\n\t"
                     "adc r31, %[zero]\n\t"
                     "ld %A[value], X+\n\t"
                     "ld %B[value], X+\n\t"
                     "mul %A[code], %A[value]\n\t"
                     "add %A[acc], r0\n\t"
                     "adc %B[acc], r1\n\t"
                     "adc %C[acc], %[zero]\n\t"
                     "adc %D[acc], %[zero]\n\t"
                     "muls %B[code], %B[value]\n\t"
                     "add %C[acc], r0\n\t"
                     "adc %D[acc], r1\n\t"
                     "mulsu %B[code], %A[value]\n\t" /* carry: the sign of the product */
                     "sbc %[sign], %[sign]\n\t"
                     "add %B[acc], r0\n\t"
                     "adc %C[acc], r1\n\t"
                     "adc %D[acc], %[sign]\n\t"
                     "mulsu %B[value], %A[code]\n\t"
                     "sbc %[sign], %[sign]\n\t"
                     "add %B[acc], r0\n\t"
                     "adc %C[acc], r1\n\t"
                     "adc %D[acc], %[sign]\n\t"
                     "cp r26, %A[end]\n\t"
                     "cpc r27, %B[end]\n\t"
                     "brne 1b\n\t"
                     "clr r1"
                     : [acc] "+&r"(acc), [codes] "+&z"(codes), [x] "+&x"(x), [value] "=&r"(value), [code] "=&r"(code),
                       [sign] "=&r"(sign)
                     : [end] "r"(end), [stride] "r"(stride), [zero] "r"(zero)
                     : "memory");
    return acc;
}

QG_KERNEL int32_t qg_dot_wide_row(const qg_section *section, uint16_t row, uint16_t n_columns, const int16_t *x)
{
    const qg_row where = qg_row_of_section(row, section->n_rows);
    const int16_t *const codes = (const int16_t *)section->codes + (where.number - where.in_block) * n_columns;
    return dot_of_words(codes + where.in_block, (uint8_t)(2 * where.stride - 2), n_columns, x);
}

#endif
