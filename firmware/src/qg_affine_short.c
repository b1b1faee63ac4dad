/* Rows of weights with a short scale each [R4], whose codes are bytes. */
#include "qg_affine.h"

#if QG_KERNELS != QG_KERNELS_AVR

QG_KERNEL void qg_affine_bytes_short(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x,
                                     int32_t *sums)
{
    qg_add_rows(qg_rows_of_bytes(matrix, first_row, x), n_rows, sums, qg_next_dots_of_bytes, qg_next_short_scale);
}

#endif
