/* Rows of weights with a scale each [R4], whose codes lie in sections. */
#include "qg_fixed.h"
#include "quantgru.h"

#if QG_KERNELS != QG_KERNELS_AVR

QG_KERNEL void qg_packed_add(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x, int32_t *sums)
{
    const uint16_t n_columns = matrix->n_columns;
    const uint8_t k = matrix->left_shift;
    const uint16_t *multiplier = matrix->multipliers + first_row;
    const uint8_t *shift = matrix->shifts + first_row;
    const int32_t *const end = sums + n_rows;
    const qg_section *section = matrix->packing->sections;
    while (first_row >= section->n_rows) {
        first_row -= section->n_rows;
        ++section;
    }
    const size_t bits = section->bits;
    const int8_t *codes = section->codes + first_row / QG_BLOCK_ROWS * bits * n_columns;
    do {
        int32_t dots[QG_BLOCK_ROWS];
        const int32_t *acc = dots;
        size_t n = (size_t)(end - sums);
        if (n >= QG_BLOCK_ROWS || n > bits) {
            n = n < QG_BLOCK_ROWS ? n : QG_BLOCK_ROWS;
            section->dot(codes, n_columns, x, dots);
            codes += bits * n_columns;
        } else {
            n = 1;
            dots[0] = section->dot_row(codes, n_columns, x);
            codes += QG_ROW_CODE_BYTES(bits) * n_columns;
        }
        do {
            *sums++ += qg_requantize(*acc++, k, QG_READ_U16(multiplier), QG_READ_U8(shift));
            ++multiplier;
            ++shift;
        } while (--n != 0);
    } while (sums != end);
}

#endif
