/* A row of weights with its scale [R4], exact or short, whose codes are bytes, for AVRs. */
#include "qg_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

static inline int32_t dot_of_row(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const uint16_t n_columns = matrix->n_columns;
    const int8_t *const codes = matrix->codes + (row.number - row.in_block) * n_columns + row.in_block;
    return qg_dot_strided(codes, row.stride, n_columns, x);
}

QG_KERNEL int32_t qg_affine_bytes(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const int32_t acc = dot_of_row(matrix, row, x);
    return qg_scaled_row(matrix, qg_exact_scale(matrix, row.number), acc);
}

QG_KERNEL int32_t qg_affine_bytes_short(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const int32_t acc = dot_of_row(matrix, row, x);
    return qg_scaled_row(matrix, qg_short_scale(matrix, row.number), acc);
}

#endif
