#include "model_digest.h"

#include "sha256.h"

enum { KIND_GRU = 1, KIND_DENSE = 2, WEIGHT_BITS = 8, GATE_SIGMOID = 0, CANDIDATE_TANH = 0, STATE_FRACTION_BITS = 15 };

static void add_u16(sha256 *hash, uint16_t value)
{
    sha256_add(hash, (uint8_t)(value & 0xff));
    sha256_add(hash, (uint8_t)(value >> 8));
}

static void add_s32_array(sha256 *hash, const int32_t *values, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        const uint32_t value = (uint32_t)QG_READ_S32(values + i);
        add_u16(hash, (uint16_t)(value & 0xffff));
        add_u16(hash, (uint16_t)(value >> 16));
    }
}

static void add_s8_array(sha256 *hash, const int8_t *values, uint16_t n, uint8_t stride)
{
    for (uint16_t i = 0; i < n; ++i) {
        sha256_add(hash, (uint8_t)QG_READ_S8(values));
        values += stride;
    }
}

/* The codes of one section row by row. In memory, the rows of a full block take turns; see qg_matrix. */
static void add_section(sha256 *hash, const int8_t *codes, uint16_t n_rows, uint16_t n_columns)
{
    const uint16_t n_in_blocks = (uint16_t)(n_rows / QG_BLOCK_ROWS * QG_BLOCK_ROWS);
    for (uint16_t row = 0; row < n_rows; ++row) {
        const uint16_t row_in_block = row < n_in_blocks ? row % QG_BLOCK_ROWS : 0;
        const uint8_t stride = row < n_in_blocks ? QG_BLOCK_ROWS : 1;
        const size_t start = (size_t)(row - row_in_block) * n_columns + row_in_block;
        add_s8_array(hash, codes + start, n_columns, stride);
    }
}

static void add_matrix(sha256 *hash, const qg_matrix *matrix, uint16_t section_rows)
{
    sha256_add(hash, WEIGHT_BITS);
    sha256_add(hash, matrix->left_shift);
    add_u16(hash, matrix->n_rows);
    add_u16(hash, matrix->n_columns);
    for (uint16_t i = 0; i < matrix->n_rows; ++i) {
        add_u16(hash, QG_READ_U16(matrix->multipliers + i));
    }
    for (uint16_t i = 0; i < matrix->n_rows; ++i) {
        sha256_add(hash, QG_READ_U8(matrix->shifts + i));
    }
    for (uint16_t row = 0; row < matrix->n_rows; row = (uint16_t)(row + section_rows)) {
        add_section(hash, matrix->codes + (size_t)row * matrix->n_columns, section_rows, matrix->n_columns);
    }
}

static void add_gru(sha256 *hash, const qg_gru *gru)
{
    const uint8_t reset_before = gru->recurrent_bias == NULL;
    sha256_add(hash, KIND_GRU);
    sha256_add(hash, reset_before);
    sha256_add(hash, GATE_SIGMOID);
    sha256_add(hash, CANDIDATE_TANH);
    sha256_add(hash, STATE_FRACTION_BITS);
    add_matrix(hash, &gru->input, gru->n_units);
    add_matrix(hash, &gru->recurrent, gru->n_units);
    add_s32_array(hash, gru->bias, gru->input.n_rows);
    if (!reset_before) {
        add_s32_array(hash, gru->recurrent_bias, gru->n_units);
    }
}

static void add_dense(sha256 *hash, const qg_dense *dense)
{
    sha256_add(hash, KIND_DENSE);
    sha256_add(hash, dense->activation_kind);
    sha256_add(hash, (uint8_t)dense->output_fraction_bits);
    add_matrix(hash, &dense->matrix, dense->matrix.n_rows);
    add_s32_array(hash, dense->bias, dense->matrix.n_rows);
}

void model_digest(const qg_model *model, uint8_t digest[QG_DIGEST_BYTES])
{
    sha256 hash;
    sha256_begin(&hash);
    for (const char *letter = "quantgru"; *letter != '\0'; ++letter) {
        sha256_add(&hash, (uint8_t)*letter);
    }
    sha256_add(&hash, QG_SPEC_MAJOR);
    sha256_add(&hash, model->last_step);
    add_u16(&hash, model->n_inputs);
    add_s8_array(&hash, model->input_fraction_bits, model->n_inputs, 1);
    sha256_add(&hash, (uint8_t)(model->n_grus + model->n_dense));
    for (uint8_t i = 0; i < model->n_grus; ++i) {
        add_gru(&hash, model->grus + i);
    }
    for (uint8_t i = 0; i < model->n_dense; ++i) {
        add_dense(&hash, model->head + i);
    }
    sha256_end(&hash, digest);
}
