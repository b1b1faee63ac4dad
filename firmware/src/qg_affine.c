/* Rows of weights with a scale each [R4]. */
#include "qg_fixed.h"
#include "quantgru.h"

#if QG_KERNELS != QG_KERNELS_AVR

QG_KERNEL void qg_read_s32(const int32_t *constants, size_t n, int32_t *values)
{
    int32_t *const end = values + n;
    do {
        *values++ = QG_READ_S32(constants);
        ++constants;
    } while (values != end);
}

QG_KERNEL void qg_affine_add(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x, int32_t *sums)
{
    if (matrix->packing != NULL) {
        matrix->packing->add(matrix, first_row, n_rows, x, sums);
        return;
    }
    const uint16_t n_columns = matrix->n_columns;
    const uint8_t k = matrix->left_shift;
    const int8_t *codes = matrix->codes + first_row * n_columns;
    const uint16_t *multiplier = matrix->multipliers + first_row;
    const uint8_t *shift = matrix->shifts + first_row;
    const int32_t *const end = sums + n_rows;
    do {
        int32_t dots[QG_BLOCK_ROWS];
        size_t n = 1;
        const int32_t *acc = dots;
        if (end - sums >= QG_BLOCK_ROWS) {
            n = QG_BLOCK_ROWS;
            qg_dot_block_8(codes, n_columns, x, dots);
        } else {
            dots[0] = qg_dot_row(codes, n_columns, x);
        }
        codes += n * n_columns;
        do {
            *sums++ += qg_requantize(*acc++, k, QG_READ_U16(multiplier), QG_READ_U8(shift));
            ++multiplier;
            ++shift;
        } while (--n != 0);
    } while (sums != end);
}

#endif
