/* A row of weights with its scale [R4], exact or short, whose codes lie in a section, for AVRs, which shift by a bit at
 * a time: a multiplication by a power of two is a shift by as many bits as one likes. */
#include "qg_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

/* Where the codes of a row lie in each column, and the powers of two that bring one to the top of a byte. */
typedef struct place {
    uint8_t first_byte;
    uint8_t to_second;   /* bytes from the first to that with the code's highest bit: 0 or 1 */
    uint8_t power;       /* for the byte with the highest bit */
    uint8_t first_power; /* for the first byte, of whose product the high byte counts; 0 if the other one has all */
} place;

static place find_place(uint8_t row, uint8_t bits)
{
    const uint8_t first_bit = (uint8_t)(row * bits);
    const uint8_t end_bit = (uint8_t)(first_bit % 8 + bits); /* in the two bytes; 2 ... 14 */
    place found = {first_bit / 8, end_bit > 8, 0, 0};
    found.power = (uint8_t)(1 << (found.to_second ? 16 - end_bit : 8 - end_bit));
    found.first_power = found.to_second ? found.power : 0;
    return found;
}

static int32_t dot_in_block(const int8_t *codes, uint8_t bits, uint8_t row, uint16_t n_columns, const int16_t *x)
{
    const place where = find_place(row, bits);
    const int8_t *byte = codes + where.first_byte;
    const uint8_t to_next = (uint8_t)(bits - where.to_second);
    register int32_t acc __asm__("r22") = 0;
    register int16_t value __asm__("r18");
    register int8_t code __asm__("r20");
    register uint8_t sign __asm__("r21");
    const uint8_t scale = (uint8_t)(1 << bits); /* a product with it has in its high byte what was on top of a byte */
    const int16_t *const end = x + n_columns;
    const uint8_t zero = 0;
    uint8_t low;
    __asm__ volatile(
        "1:\n\t"
        "lpm %[low], Z\n\t"
        "add r30, %[to_second]\n\t"
        "adc r31, %[zero]\n\t"
        "lpm %[code], Z\n\t"
        "add r30, %[to_next]\n\t"
        "adc r31, %[zero]\n\t"
        "mul %[low], %[first_power]\n\t"
        "mov %[low], r1\n\t"
        "mul %[code], %[power]\n\t"
        "or r0, %[low]\n\t"
        "mov %[code], r0\n\t"
        "mulsu %[code], %[scale]\n\t" /* the lower bits of the byte, of other rows, go */
        "mov %[code], r1\n\t"
        "ld %A[value], X+\n\t"
        "ld %B[value], X+\n\t"
        "mulsu %[code], %A[value]\n\t" /* from here on as for codes of 8 bits */
        "sbc %[sign], %[sign]\n\t"
        "add %A[acc], r0\n\t"
        "adc %B[acc], r1\n\t"
        "adc %C[acc], %[sign]\n\t"
        "adc %D[acc], %[sign]\n\t"
        "muls %[code], %B[value]\n\t"
        "sbc %[sign], %[sign]\n\t"
        "add %B[acc], r0\n\t"
        "adc %C[acc], r1\n\t"
        "adc %D[acc], %[sign]\n\t"
        "cp r26, %A[end]\n\t"
        "cpc r27, %B[end]\n\t"
        "brne 1b\n\t"
        "clr r1"
        : [acc] "+&r"(acc), [byte] "+&z"(byte), [x] "+&x"(x), [value] "=&r"(value), [code] "=&r"(code),
          [sign] "=&r"(sign), [low] "=&r"(low)
        : [end] "r"(end), [to_second] "r"(where.to_second), [to_next] "r"(to_next), [power] "r"(where.power),
          [first_power] "r"(where.first_power), [scale] "a"(scale), [zero] "r"(zero)
        : "memory");
    return acc;
}

QG_KERNEL int32_t qg_dot_packed_row(const qg_section *section, uint16_t row, uint16_t n_columns, const int16_t *x)
{
    const uint8_t bits = section->bits;
    const uint8_t in_block = row % QG_BLOCK_ROWS;
    const uint16_t left = section->n_rows - row + in_block;
    const int8_t *const block = section->codes + row / QG_BLOCK_ROWS * bits * n_columns;
    if (left < QG_BLOCK_ROWS && left <= bits) {
        return qg_dot_strided(block + in_block * n_columns, 1, n_columns, x);
    }
    return bits == 8 ? qg_dot_strided(block + in_block, QG_BLOCK_ROWS, n_columns, x)
                     : dot_in_block(block, bits, in_block, n_columns, x);
}

static int32_t dot_in_section(const qg_matrix *matrix, uint16_t row, const int16_t *x)
{
    const qg_section *section = matrix->packing->sections;
    while (row >= section->n_rows) {
        row -= section->n_rows;
        ++section;
    }
    return section->dot(section, row, matrix->n_columns, x);
}

QG_KERNEL int32_t qg_affine_packed(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const int32_t acc = dot_in_section(matrix, row.number, x);
    return qg_scaled_row(matrix, qg_exact_scale(matrix, row.number), acc);
}

QG_KERNEL int32_t qg_affine_packed_short(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const int32_t acc = dot_in_section(matrix, row.number, x);
    return qg_scaled_row(matrix, qg_short_scale(matrix, row.number), acc);
}

#endif
