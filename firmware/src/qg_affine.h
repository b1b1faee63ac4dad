/* Rows of weights with a scale each [R4], however they lie in memory, for QG_KERNELS other than those of AVRs. Each way
 * has a loop of its own: qg_add_rows, made for the functions that read dot products and scales. */
#ifndef QG_AFFINE_H
#define QG_AFFINE_H

#include "qg_fixed.h"
#include "qg_scale.h"
#include "quantgru.h"

#if QG_KERNELS != QG_KERNELS_AVR

static inline void qg_affine_add(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x,
                                 int32_t *sums)
{
    matrix->packing->affine(matrix, first_row, n_rows, x, sums);
}

/* Rows that lie one after the other, from the next one on, and what they are multiplied with. */
typedef struct qg_rows {
    const int8_t *codes; /* of the next row's block */
    const uint16_t *multipliers;
    const uint8_t *shifts;
    size_t row; /* the next one of the matrix */
    const int16_t *x;
    const qg_section *section; /* of packed codes */
    uint16_t n_columns;
    uint8_t left_shift;
    uint8_t first_shift;
} qg_rows;

static inline qg_rows qg_rows_in(const qg_section *section, const int8_t *codes, const qg_matrix *matrix,
                                 size_t first_row, const int16_t *x)
{
    const qg_rows rows = {codes,   matrix->multipliers, matrix->shifts,     first_row,          x,
                          section, matrix->n_columns,   matrix->left_shift, matrix->first_shift};
    return rows;
}

static inline qg_rows qg_rows_of_bytes(const qg_matrix *matrix, size_t first_row, const int16_t *x)
{
    return qg_rows_in(NULL, matrix->codes + first_row * matrix->n_columns, matrix, first_row, x);
}

static inline qg_rows qg_packed_rows(const qg_matrix *matrix, size_t first_row, const int16_t *x)
{
    const qg_section *section = matrix->packing->sections;
    size_t row = first_row;
    while (row >= section->n_rows) {
        row -= section->n_rows;
        ++section;
    }
    const int8_t *const codes = section->codes + row / QG_BLOCK_ROWS * section->bits * matrix->n_columns;
    return qg_rows_in(section, codes, matrix, first_row, x);
}

/* The dot products of the next rows, at most `left`. Returns how many these are. */
typedef size_t qg_next_dots(qg_rows *rows, size_t left, int32_t dots[QG_BLOCK_ROWS]);

static inline size_t qg_next_dots_of_bytes(qg_rows *rows, size_t left, int32_t dots[QG_BLOCK_ROWS])
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

static inline size_t qg_next_packed_dots(qg_rows *rows, size_t left, int32_t dots[QG_BLOCK_ROWS])
{
    const size_t bits = rows->section->bits;
    if (left < QG_BLOCK_ROWS && left <= bits) { /* rows by themselves take less than a block that is not full */
        dots[0] = rows->section->dot_row(rows->codes, rows->n_columns, rows->x);
        rows->codes += QG_ROW_CODE_BYTES(bits) * rows->n_columns;
        return 1;
    }
    rows->section->dot(rows->codes, rows->n_columns, rows->x, dots);
    rows->codes += bits * rows->n_columns;
    return left < QG_BLOCK_ROWS ? left : QG_BLOCK_ROWS;
}

/* The scale of the next row. */
typedef qg_scale qg_next_scale(qg_rows *rows);

static inline qg_scale qg_next_exact_scale(qg_rows *rows)
{
    const qg_scale scale = {QG_READ_U16(rows->multipliers + rows->row), QG_READ_U8(rows->shifts + rows->row)};
    ++rows->row;
    return scale;
}

static inline qg_scale qg_next_short_scale(qg_rows *rows)
{
    const qg_scale scale = qg_from_short_scale(QG_READ_U8(rows->shifts + rows->row), rows->first_shift);
    ++rows->row;
    return scale;
}

/* Adds n_rows rows, requantized, to sums. */
static inline void qg_add_rows(qg_rows rows, size_t n_rows, int32_t *sums, qg_next_dots next_dots,
                               qg_next_scale next_scale)
{
    const int32_t *const end = sums + n_rows;
    do {
        int32_t dots[QG_BLOCK_ROWS];
        const int32_t *acc = dots;
        size_t n = next_dots(&rows, (size_t)(end - sums), dots);
        do {
            const qg_scale scale = next_scale(&rows);
            *sums++ += qg_requantize(*acc++, rows.left_shift, scale.m, scale.s);
        } while (--n != 0);
    } while (sums != end);
}

#endif

#endif
