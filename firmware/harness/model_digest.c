#include "model_digest.h"

#include "sha256.h"

enum { GRU_WITH_INITIAL_STATE = 6, BYTE_BITS = 8, WORD_BITS = 16 };

static void add_u16(sha256 *hash, uint16_t value)
{
    sha256_add(hash, (uint8_t)(value & 0xff));
    sha256_add(hash, (uint8_t)(value >> 8));
}

static void add_s32(sha256 *hash, int32_t value)
{
    add_u16(hash, (uint16_t)((uint32_t)value & 0xffff));
    add_u16(hash, (uint16_t)((uint32_t)value >> 16));
}

static void add_s32_array(sha256 *hash, const int32_t *values, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        add_s32(hash, QG_READ_S32(values + i));
    }
}

/* Biases of a GRU layer. Short ones have 16 bits and one shift. */
static void add_biases(sha256 *hash, const qg_gru *gru, const void *biases, uint16_t n)
{
    if (gru->input.multipliers != NULL) {
        add_s32_array(hash, (const int32_t *)biases, n);
        return;
    }
    for (uint16_t i = 0; i < n; ++i) {
        add_s32(hash, QG_READ_S16((const int16_t *)biases + i) * ((int32_t)1 << gru->bias_shift));
    }
}

static void add_s8_array(sha256 *hash, const int8_t *values, size_t n)
{
    for (size_t i = 0; i < n; ++i) {
        sha256_add(hash, (uint8_t)QG_READ_S8(values + i));
    }
}

/* The code that begins with bit `first` of a column's packed bytes; it ends in the same byte, or in the next. */
static int16_t code_at(const int8_t *bytes, uint8_t first, uint8_t bits)
{
    if (bits == WORD_BITS) {
        return QG_READ_S16((const int16_t *)(const void *)bytes + first / WORD_BITS);
    }
    const uint8_t end = (uint8_t)(first % 8 + bits);
    uint16_t word = (uint8_t)QG_READ_S8(bytes + first / 8);
    if (end > 8) {
        word = (uint16_t)(word | (uint16_t)(uint8_t)QG_READ_S8(bytes + first / 8 + 1) << 8);
    }
    return (int16_t)((int16_t)(uint16_t)((uint32_t)word << (16 - end)) >> (16 - bits));
}

/* A code of a matrix whose codes have matrix_bits in the digest. */
static void add_code(sha256 *hash, int16_t code, uint8_t matrix_bits)
{
    if (matrix_bits == WORD_BITS) {
        add_u16(hash, (uint16_t)code);
    } else {
        sha256_add(hash, (uint8_t)code);
    }
}

/* Codes of one gate, or of a dense layer, row by row; in memory, the rows of a block take turns. See qg_section. */
static void add_rows(sha256 *hash, const int8_t *codes, uint8_t bits, uint16_t n_rows, uint16_t n_columns,
                     uint8_t matrix_bits)
{
    const uint8_t row_code_bytes = QG_ROW_CODE_BYTES(bits);
    for (uint16_t row = 0; row < n_rows; ++row) {
        const uint8_t row_in_block = row % QG_BLOCK_ROWS;
        const uint16_t left = (uint16_t)(n_rows - row + row_in_block);
        const int8_t *const block = codes + (size_t)(row / QG_BLOCK_ROWS) * bits * n_columns;
        if (left < QG_BLOCK_ROWS && left <= bits) {
            const int8_t *const by_itself = block + (size_t)row_in_block * row_code_bytes * n_columns;
            for (uint16_t column = 0; column < n_columns; ++column) {
                add_code(hash, code_at(by_itself + (size_t)column * row_code_bytes, 0, (uint8_t)(8 * row_code_bytes)),
                         matrix_bits);
            }
            continue;
        }
        for (uint16_t column = 0; column < n_columns; ++column) {
            const int8_t *const bytes = block + (size_t)column * bits;
            add_code(hash, code_at(bytes, (uint8_t)(row_in_block * bits), bits), matrix_bits);
        }
    }
}

/* 16 where a section has codes of so many bits, which a byte does not hold [R17]. */
static uint8_t bits_of(const qg_matrix *matrix)
{
    const qg_section *section = matrix->packing->sections;
    for (uint16_t row = 0; section != NULL && row < matrix->n_rows; ++section) {
        if (section->bits == WORD_BITS) {
            return WORD_BITS;
        }
        row = (uint16_t)(row + section->n_rows);
    }
    return BYTE_BITS;
}

static void add_codes(sha256 *hash, const qg_matrix *matrix, uint16_t section_rows, uint8_t matrix_bits)
{
    if (matrix->packing->sections == NULL) {
        for (uint16_t row = 0; row < matrix->n_rows; row = (uint16_t)(row + section_rows)) {
            const int8_t *const codes = matrix->codes + (size_t)row * matrix->n_columns;
            add_rows(hash, codes, BYTE_BITS, section_rows, matrix->n_columns, matrix_bits);
        }
        return;
    }
    const qg_section *section = matrix->packing->sections;
    for (uint16_t row = 0; row < matrix->n_rows; row = (uint16_t)(row + section->n_rows), ++section) {
        add_rows(hash, section->codes, section->bits, section->n_rows, matrix->n_columns, matrix_bits);
    }
}

/* All multipliers, then all shifts. A short scale has both: the multiplier's six upper bits without the first, then
 * what its shift is above the least. */
static void add_scales(sha256 *hash, const qg_matrix *matrix)
{
    const uint8_t is_short = matrix->multipliers == NULL;
    for (uint16_t i = 0; i < matrix->n_rows; ++i) {
        const uint8_t byte = QG_READ_U8(matrix->shifts + i);
        add_u16(hash, is_short ? (uint16_t)((byte & 0x1f) << 9 | 1 << 14) : QG_READ_U16(matrix->multipliers + i));
    }
    for (uint16_t i = 0; i < matrix->n_rows; ++i) {
        const uint8_t byte = QG_READ_U8(matrix->shifts + i);
        sha256_add(hash, is_short ? (uint8_t)(matrix->first_shift + (byte >> 5)) : byte);
    }
}

static void add_matrix(sha256 *hash, const qg_matrix *matrix, uint16_t section_rows)
{
    const uint8_t bits = bits_of(matrix);
    sha256_add(hash, bits);
    sha256_add(hash, matrix->left_shift);
    add_u16(hash, matrix->n_rows);
    add_u16(hash, matrix->n_columns);
    add_scales(hash, matrix);
    add_codes(hash, matrix, section_rows, bits);
}

static void add_gru(sha256 *hash, const qg_gru *gru)
{
    const uint8_t reset_before = gru->recurrent_bias == NULL;
    sha256_add(hash, gru->initial_state == NULL ? QG_GRU : GRU_WITH_INITIAL_STATE);
    sha256_add(hash, reset_before);
    sha256_add(hash, gru->gate_kind);
    sha256_add(hash, gru->candidate_kind);
    sha256_add(hash, (uint8_t)gru->state_fraction_bits);
    add_matrix(hash, &gru->input, gru->n_units);
    add_matrix(hash, &gru->recurrent, gru->n_units);
    add_biases(hash, gru, gru->bias, gru->input.n_rows);
    if (!reset_before) {
        add_biases(hash, gru, gru->recurrent_bias, gru->n_units);
    }
    for (uint16_t i = 0; gru->initial_state != NULL && i < gru->n_units; ++i) {
        add_u16(hash, (uint16_t)QG_READ_S16(gru->initial_state + i));
    }
}

static void add_dense(sha256 *hash, const qg_dense *dense)
{
    sha256_add(hash, QG_DENSE);
    sha256_add(hash, dense->activation_kind);
    sha256_add(hash, (uint8_t)dense->output_fraction_bits);
    add_matrix(hash, &dense->matrix, dense->matrix.n_rows);
    add_s32_array(hash, dense->bias, dense->matrix.n_rows);
}

static void add_embedding(sha256 *hash, const qg_embedding *embedding)
{
    sha256_add(hash, QG_EMBEDDING);
    add_u16(hash, embedding->n_tokens);
    add_u16(hash, embedding->n_outputs);
    add_s8_array(hash, embedding->codes, (size_t)embedding->n_tokens * embedding->n_outputs);
}

/* The two directions stand one after the other. */
static void add_bidirectional(sha256 *hash, const qg_bidirectional *layer, const qg_gru *directions)
{
    sha256_add(hash, QG_BIDIRECTIONAL);
    sha256_add(hash, layer->merge_kind);
    sha256_add(hash, layer->final);
    add_gru(hash, directions);
    add_gru(hash, directions + 1);
}

static void add_layers(sha256 *hash, const qg_model *model)
{
    const qg_gru *gru = model->grus;
    const qg_dense *dense = model->dense;
    const qg_bidirectional *bidirectional = model->bidirectionals;
    for (uint8_t i = 0; i < model->n_layers; ++i) {
        switch (model->kinds[i]) {
        case QG_GRU:
            add_gru(hash, gru++);
            break;
        case QG_DENSE:
            add_dense(hash, dense++);
            break;
        case QG_EMBEDDING:
            add_embedding(hash, model->embedding);
            break;
        case QG_BIDIRECTIONAL:
            add_bidirectional(hash, bidirectional++, gru);
            gru += 2;
            break;
        default: /* a reversal is nothing but its kind */
            sha256_add(hash, QG_REVERSE);
        }
    }
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
    add_s8_array(&hash, model->input_fraction_bits, model->n_inputs);
    sha256_add(&hash, model->n_layers);
    add_layers(&hash, model);
    sha256_end(&hash, digest);
}
