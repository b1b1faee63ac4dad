/* The kernels of AVRs work row by row: there are no registers for the sums of several rows, and no stack for an array
 * of them. */
#ifndef QG_AVR_H
#define QG_AVR_H

#include "qg_scale.h"
#include "quantgru.h"

#if QG_KERNELS == QG_KERNELS_AVR

/* Row i of the section of n_rows rows that begins with row 0; the same row of another section is n_rows further. */
static inline qg_row qg_row_of_section(uint16_t i, uint16_t n_rows)
{
    qg_row row = {i, (uint8_t)(i % QG_BLOCK_ROWS), QG_BLOCK_ROWS};
    if (i - row.in_block + QG_BLOCK_ROWS > n_rows) { /* among those that fill no block */
        row.in_block = 0;
        row.stride = 1;
    }
    return row;
}

/* The dot product of a row with x [n_columns], requantized [R4]. */
static inline int32_t qg_affine_row(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    return matrix->packing->affine(matrix, row, x);
}

/* The exact dot product of n_columns weights, `stride` bytes apart, with x. n_columns is at least 1. */
int32_t qg_dot_strided(const int8_t *codes, uint8_t stride, uint16_t n_columns, const int16_t *x);

/* a m / 2^(16+s), rounded to nearest, ties up: R4 for a = acc 2^k. m < 2^15, 1 <= s <= 30. */
int32_t qg_requantize_avr(int32_t a, uint16_t m, uint8_t s);

/* [R4] of the dot product of a row. */
static inline int32_t qg_scaled_row(const qg_matrix *matrix, qg_scale scale, int32_t acc)
{
    return qg_requantize_avr((int32_t)((uint32_t)acc << matrix->left_shift), scale.m, scale.s);
}

static inline qg_scale qg_exact_scale(const qg_matrix *matrix, uint16_t row)
{
    const qg_scale scale = {QG_READ_U16(matrix->multipliers + row), QG_READ_U8(matrix->shifts + row)};
    return scale;
}

static inline qg_scale qg_short_scale(const qg_matrix *matrix, uint16_t row)
{
    return qg_from_short_scale(QG_READ_U8(matrix->shifts + row), matrix->first_shift);
}

/* [R5] b r / 2^15, rounded to nearest, ties up; 0 <= r <= 2^15. Split at 16 bits instead of 15: 2 (b >> 16) r and what
 * is left are an int32_t each, for every b. */
static inline int32_t qg_reset_product_avr(int32_t b, uint16_t r)
{
    const int32_t high = (int32_t)(int16_t)(b >> 16) * r * 2;
    const uint32_t low = ((uint32_t)(uint16_t)b * r * 2 + 0x8000u) >> 16;
    return high + (int32_t)low;
}

#endif

#endif
