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

/* The section of a row; `row` becomes its number there. */
static const qg_section *find_section(const qg_section *section, size_t *row)
{
    while (*row >= section->n_rows) {
        *row -= section->n_rows;
        ++section;
    }
    return section;
}

QG_KERNEL void qg_affine_add(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x, int32_t *sums)
{
    const uint16_t n_columns = matrix->n_columns;
    const uint8_t k = matrix->left_shift;
    const uint16_t *multiplier = matrix->multipliers + first_row;
    const uint8_t *shift = matrix->shifts + first_row;
    const int32_t *const end = sums + n_rows;
    qg_dot_function *dot = qg_dot_block;
    size_t bits = 8;
    const int8_t *codes;
    if (matrix->sections == NULL) {
        codes = matrix->codes + first_row * n_columns;
    } else {
        const qg_section *const section = find_section(matrix->sections, &first_row);
        dot = section->dot;
        bits = section->bits;
        codes = section->codes + first_row / QG_BLOCK_ROWS * bits * n_columns;
    }
    do {
        int32_t dots[QG_BLOCK_ROWS];
        const int32_t *acc = dots;
        size_t n = (size_t)(end - sums);
        if (n >= QG_BLOCK_ROWS || n > bits) {
            n = n < QG_BLOCK_ROWS ? n : QG_BLOCK_ROWS;
            dot(codes, n_columns, x, dots);
            codes += bits * n_columns;
        } else {
            n = 1;
            dots[0] = qg_dot_row(codes, n_columns, x);
            codes += n_columns;
        }
        do {
            *sums++ += qg_requantize(*acc++, k, QG_READ_U16(multiplier), QG_READ_U8(shift));
            ++multiplier;
            ++shift;
        } while (--n != 0);
    } while (sums != end);
}

#endif
