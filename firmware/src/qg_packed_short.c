/* Rows of weights with a short scale each [R4], whose codes lie in sections. */
#include "qg_affine.h"

#if QG_KERNELS != QG_KERNELS_AVR

QG_KERNEL void qg_affine_packed_short(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x,
                                      int32_t *sums)
{
    qg_add_rows(qg_packed_rows(matrix, first_row, x), n_rows, sums, qg_next_packed_dots, qg_next_short_scale);
}

#endif
