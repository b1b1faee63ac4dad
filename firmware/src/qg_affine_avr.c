/* A row of weights with its scale [R4], for AVRs. */
#include "qg_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

/* The dot product of a row whose codes lie in sections. */
static int32_t dot_in_sections(const qg_matrix *matrix, uint16_t number, const int16_t *x)
{
    const uint16_t n_columns = matrix->n_columns;
    const qg_section *section = matrix->sections;
    while (number >= section->n_rows) {
        number -= section->n_rows;
        ++section;
    }
    const uint8_t row = number % QG_BLOCK_ROWS;
    const uint16_t first = number - row;
    const uint16_t left = section->n_rows - first;
    const int8_t *const codes = section->codes + first / QG_BLOCK_ROWS * section->bits * n_columns;
    if (left >= QG_BLOCK_ROWS || left > section->bits) {
        return section->dot(codes, row, n_columns, x);
    }
    return qg_dot_strided(codes + row * n_columns, 1, n_columns, x);
}

static int32_t dot_of_row(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const uint16_t n_columns = matrix->n_columns;
    const int8_t *const codes = matrix->codes + (row.number - row.in_block) * n_columns + row.in_block;
    return qg_dot_strided(codes, row.stride, n_columns, x);
}

QG_KERNEL int32_t qg_affine_row(const qg_matrix *matrix, qg_row row, const int16_t *x)
{
    const int32_t acc = matrix->sections == NULL ? dot_of_row(matrix, row, x) : dot_in_sections(matrix, row.number, x);
    const int32_t scaled = (int32_t)((uint32_t)acc << matrix->left_shift);
    const uint16_t multiplier = QG_READ_U16(matrix->multipliers + row.number);
    return qg_requantize_avr(scaled, multiplier, QG_READ_U8(matrix->shifts + row.number));
}

#endif
