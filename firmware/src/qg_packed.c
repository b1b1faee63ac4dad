/* Rows of weights with a scale each [R4], whose codes lie in sections. */
#include "qg_affine.h"

#if QG_KERNELS != QG_KERNELS_AVR

static inline size_t next_dots(qg_rows *rows, size_t left, int32_t dots[QG_BLOCK_ROWS])
{
    const size_t bits = rows->section->bits;
    if (left < QG_BLOCK_ROWS && left <= bits) {
        dots[0] = qg_dot_row(rows->codes, rows->n_columns, rows->x);
        rows->codes += rows->n_columns;
        return 1;
    }
    rows->section->dot(rows->codes, rows->n_columns, rows->x, dots);
    rows->codes += bits * rows->n_columns;
    return left < QG_BLOCK_ROWS ? left : QG_BLOCK_ROWS;
}

QG_KERNEL void qg_affine_packed(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x,
                                int32_t *sums)
{
    const qg_section *section = matrix->packing->sections;
    size_t row = first_row;
    while (row >= section->n_rows) {
        row -= section->n_rows;
        ++section;
    }
    const int8_t *const codes = section->codes + row / QG_BLOCK_ROWS * section->bits * matrix->n_columns;
    qg_rows rows = qg_rows_from(matrix, first_row, codes, x);
    rows.section = section;
    qg_add_rows(rows, matrix->left_shift, n_rows, sums, next_dots);
}

#endif
