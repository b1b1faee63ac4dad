/* Rows of weights with a scale each [R4], whose codes are bytes. */
#include "qg_affine.h"

#if QG_KERNELS != QG_KERNELS_AVR

QG_KERNEL void qg_read_s32(const int32_t *constants, size_t n, int32_t *values)
{
    int32_t *const end = values + n;
    do {
        *values++ = QG_READ_S32(constants);
        ++constants;
    } while (values != end);
}

static inline size_t next_dots(qg_rows *rows, size_t left, int32_t *dots)
{
    size_t n = 1;
    if (left >= QG_BLOCK_ROWS) {
        n = QG_BLOCK_ROWS;
        qg_dot_block_8(rows->codes, rows->n_columns, rows->x, dots);
    } else {
        dots[0] = qg_dot_row(rows->codes, rows->n_columns, rows->x);
    }
    rows->codes += n * rows->n_columns;
    return n;
}

QG_KERNEL void qg_affine_bytes(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x,
                               int32_t *sums)
{
    const int8_t *const codes = matrix->codes + first_row * matrix->n_columns;
    qg_add_rows(qg_rows_from(matrix, first_row, codes, x), matrix->left_shift, n_rows, sums, next_dots);
}

#endif
