/* Rows of weights with a scale each [R4], however they lie in memory, for QG_KERNELS other than those of AVRs. Each
 * packing has a loop of its own, made of qg_add_rows and of how it reads dot products and scales. */
#ifndef QG_AFFINE_H
#define QG_AFFINE_H

#include "qg_fixed.h"
#include "quantgru.h"

#if QG_KERNELS != QG_KERNELS_AVR

static inline void qg_affine_add(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x,
                                 int32_t *sums)
{
    matrix->packing->affine(matrix, first_row, n_rows, x, sums);
}

/* Rows that lie one after the other, from the next one on, and what they are multiplied with. */
typedef struct qg_rows {
    const int8_t *codes;
    const uint16_t *multipliers;
    const uint8_t *shifts;
    const int16_t *x;
    const qg_section *section; /* of packed codes */
    uint16_t n_columns;
} qg_rows;

static inline qg_rows qg_rows_from(const qg_matrix *matrix, size_t row, const int8_t *codes, const int16_t *x)
{
    const qg_rows rows = {codes, matrix->multipliers + row, matrix->shifts + row, x, NULL, matrix->n_columns};
    return rows;
}

/* Adds n_rows rows, requantized, to sums. `next_dots` gives dot products of the next rows, at most `left`, and how many
 * these are. */
static inline void qg_add_rows(qg_rows rows, uint8_t left_shift, size_t n_rows, int32_t *sums,
                               size_t (*next_dots)(qg_rows *rows, size_t left, int32_t dots[QG_BLOCK_ROWS]))
{
    const int32_t *const end = sums + n_rows;
    do {
        int32_t dots[QG_BLOCK_ROWS];
        const int32_t *acc = dots;
        size_t n = next_dots(&rows, (size_t)(end - sums), dots);
        do {
            *sums++ += qg_requantize(*acc++, left_shift, QG_READ_U16(rows.multipliers), QG_READ_U8(rows.shifts));
            ++rows.multipliers;
            ++rows.shifts;
        } while (--n != 0);
    } while (sums != end);
}

#endif

#endif
