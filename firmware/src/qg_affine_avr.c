/* A row of weights with its scale [R4], for AVRs. */
#include "qg_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

QG_KERNEL int32_t qg_affine_row(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const uint16_t n_columns = matrix->n_columns;
    const int8_t *const codes = matrix->codes + (row.number - row.in_block) * n_columns + row.in_block;
    const uint32_t acc = (uint32_t)qg_dot_strided(codes, row.stride, n_columns, x);
    const uint16_t multiplier = QG_READ_U16(matrix->multipliers + row.number);
    return qg_requantize_avr((int32_t)(acc << matrix->left_shift), multiplier, QG_READ_U8(matrix->shifts + row.number));
}

#endif
