/* A row of weights with its scale [R4], for AVRs. */
#include "qg_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

static int32_t dot_of_row(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const uint16_t n_columns = matrix->n_columns;
    const int8_t *const codes = matrix->codes + (row.number - row.in_block) * n_columns + row.in_block;
    return qg_dot_strided(codes, row.stride, n_columns, x);
}

QG_KERNEL int32_t qg_affine_row(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const qg_packing *const packing = matrix->packing;
    const int32_t acc = packing == NULL ? dot_of_row(matrix, row, x) : packing->dot(matrix, row.number, x);
    const uint16_t multiplier = QG_READ_U16(matrix->multipliers + row.number);
    const int32_t scaled = (int32_t)((uint32_t)acc << matrix->left_shift);
    return qg_requantize_avr(scaled, multiplier, QG_READ_U8(matrix->shifts + row.number));
}

#endif
