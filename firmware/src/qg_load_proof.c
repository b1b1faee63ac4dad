/* What a model must prove (SPEC.md, chapter 7), proved again for one that comes as data. */
#include "qg_fixed.h"
#include "qg_load_parts.h"

#ifdef QG_LOADER

enum { MOST_LEFT_SHIFT = 15 };

static uint8_t scales_are_valid(const qg_matrix *matrix)
{
    for (uint16_t row = 0; row < matrix->n_rows; ++row) {
        const uint16_t m = QG_READ_U16(matrix->multipliers + row);
        const uint8_t s = QG_READ_U8(matrix->shifts + row);
        if (m < 1u << 14 || m >= 1u << 15 || s < 1 || s > 30) {
            return 0;
        }
    }
    return matrix->left_shift <= MOST_LEFT_SHIFT;
}

/* Codes of 8 bits, or of 16 in sections one after the other. */
static int32_t code_at(const qg_matrix *matrix, size_t i)
{
    if (matrix->codes != NULL) {
        return QG_READ_S8(matrix->codes + i);
    }
    return QG_READ_S16((const int16_t *)(const void *)matrix->packing->sections->codes + i);
}

/* Sum of |w| over one row, below 2^31. In memory, the rows of a full block take turns; see qg_matrix. */
static uint32_t row_magnitude(const qg_matrix *matrix, uint16_t section_rows, uint16_t row)
{
    const uint16_t row_in_section = row % section_rows;
    const uint8_t in_block = row_in_section < section_rows / QG_BLOCK_ROWS * QG_BLOCK_ROWS;
    const uint16_t row_in_block = in_block ? row_in_section % QG_BLOCK_ROWS : 0;
    const uint8_t stride = in_block ? QG_BLOCK_ROWS : 1;
    size_t at = (size_t)(row - row_in_block) * matrix->n_columns + row_in_block;
    uint32_t sum = 0;
    for (uint16_t column = 0; column < matrix->n_columns; ++column) {
        const int32_t w = code_at(matrix, at);
        sum += (uint32_t)(w < 0 ? -w : w);
        at += stride;
    }
    return sum;
}

/* Takes a bound from what is left of 2^31 - 1. Returns 0 if too little is left. */
static uint8_t take_bound(uint32_t *left, uint32_t bound)
{
    if (bound > *left) {
        return 0;
    }
    *left -= bound;
    return 1;
}

static uint8_t take_bias(uint32_t *left, int32_t bias)
{
    return take_bound(left, bias < 0 ? 0 - (uint32_t)bias : (uint32_t)bias);
}

/* [P1] A 2^k = 2^15 sum 2^k <= 2^31 - 1, for no operand is larger than 2^15; [P2] Q, below 2^30. */
static uint8_t take_row(uint32_t *left, const qg_matrix *matrix, uint16_t section_rows, uint16_t row)
{
    const uint32_t sum = row_magnitude(matrix, section_rows, row);
    if (sum > 0xffffu >> matrix->left_shift) {
        return 0;
    }
    const int32_t largest = (int32_t)(sum << 15 << matrix->left_shift);
    const int32_t scaled = qg_mul_shift16(largest, QG_READ_U16(matrix->multipliers + row));
    return take_bound(left, ((uint32_t)scaled >> QG_READ_U8(matrix->shifts + row)) + 1);
}

/* P2 of one row of z, r and n. */
static uint8_t gru_row_fits(const qg_gru *gru, uint16_t row)
{
    const uint16_t n_units = gru->n_units;
    const int32_t *const bias = (const int32_t *)gru->bias; /* a blob has no short ones */
    const int32_t *const recurrent_bias = (const int32_t *)gru->recurrent_bias;
    uint32_t left = INT32_MAX;
    if (!take_row(&left, &gru->input, n_units, row) || !take_row(&left, &gru->recurrent, n_units, row) ||
        !take_bias(&left, QG_READ_S32(bias + row))) {
        return 0;
    }
    if (recurrent_bias == NULL || row < 2 * n_units) {
        return 1;
    }
    return take_bias(&left, QG_READ_S32(recurrent_bias + (row - 2 * n_units)));
}

int8_t qg_prove_gru(const qg_gru *gru)
{
    if (!scales_are_valid(&gru->input) || !scales_are_valid(&gru->recurrent)) {
        return QG_LOAD_SCALE;
    }
    for (uint16_t row = 0; row < gru->input.n_rows; ++row) {
        if (!gru_row_fits(gru, row)) {
            return QG_LOAD_OVERFLOW;
        }
    }
    return 0;
}

int8_t qg_prove_dense(const qg_dense *dense)
{
    const qg_matrix *const matrix = &dense->matrix;
    if (!scales_are_valid(matrix)) {
        return QG_LOAD_SCALE;
    }
    for (uint16_t row = 0; row < matrix->n_rows; ++row) {
        uint32_t left = INT32_MAX;
        if (!take_row(&left, matrix, matrix->n_rows, row) || !take_bias(&left, QG_READ_S32(dense->bias + row))) {
            return QG_LOAD_OVERFLOW;
        }
    }
    return 0;
}

#endif
