/* A model from a blob: its header, its layers, and the memory that they need. Everything that BLOB.md says is checked
 * before it is used. */
#include "qg_load_parts.h"

#ifdef QG_LOADER

#include <string.h>

/* Only the first check that fails counts; what is read after it is not used. */
static void refuse_if(qg_blob *blob, uint8_t wrong, int8_t code)
{
    if (wrong && blob->refused == 0) {
        blob->refused = code;
    }
}

/* ---- the header -------------------------------------------------------------------------------------------------- */

/* Length and CRC; sets blob->end. */
static int8_t check_envelope(qg_blob *blob, uint32_t n_bytes)
{
    static const uint8_t magic[4] = {'q', 'g', 'r', 'b'};
    const uint8_t *const bytes = blob->bytes;
    if (n_bytes < QG_HEADER_BYTES + QG_CRC_BYTES) {
        return QG_LOAD_LENGTH;
    }
    if (memcmp(bytes, magic, sizeof magic) != 0) {
        return QG_LOAD_MAGIC;
    }
    if (bytes[QG_HEADER_VERSION] != QG_BLOB_VERSION || bytes[QG_HEADER_SPEC_MAJOR] != QG_SPEC_MAJOR ||
        bytes[QG_HEADER_SPEC_MINOR] > QG_SPEC_MINOR) {
        return QG_LOAD_VERSION;
    }
    const uint32_t length = qg_blob_u32(bytes + QG_HEADER_LENGTH);
    if (length > n_bytes || length < QG_HEADER_BYTES + QG_CRC_BYTES) {
        return QG_LOAD_LENGTH;
    }
    blob->end = length - QG_CRC_BYTES;
    return qg_crc32(0, bytes, blob->end) == qg_blob_u32(bytes + blob->end) ? 0 : QG_LOAD_CRC;
}

static int8_t check_header(const qg_blob *blob)
{
    if (blob->bytes[QG_HEADER_LAST_STEP] > 1 || blob->bytes[QG_HEADER_ZERO] != 0) {
        return QG_LOAD_RESERVED;
    }
    return qg_blob_u16(blob->bytes + QG_HEADER_INPUTS) == 0 ? QG_LOAD_SIZE : 0;
}

/* ---- layers ------------------------------------------------------------------------------------------------------ */

/* Where descriptors go, in the order of the layers. */
typedef struct descriptors {
    qg_gru *gru;
    qg_dense *dense;
    qg_embedding *embedding;
    qg_wide_matrix *wide;
} descriptors;

/* The array of n elements whose offset stands at `field`. */
static const void *find_array(qg_blob *blob, const uint8_t *field, uint32_t n, uint32_t size)
{
    const uint32_t offset = qg_blob_u32(field);
    if (offset < QG_HEADER_BYTES || offset % size != 0 || offset > blob->end || n > (blob->end - offset) / size) {
        refuse_if(blob, 1, QG_LOAD_OFFSET);
        return NULL;
    }
    return blob->bytes + offset;
}

/* The same of an array that a layer can be without: NULL for offset 0. */
static const void *find_optional_array(qg_blob *blob, const uint8_t *field, uint32_t n, uint32_t size)
{
    return qg_blob_u32(field) == 0 ? NULL : find_array(blob, field, n, size);
}

static void require_zeros(qg_blob *blob, const uint8_t zeros[3])
{
    refuse_if(blob, (zeros[0] | zeros[1] | zeros[2]) != 0, QG_LOAD_RESERVED);
}

static const qg_packing in_bytes = {qg_affine_bytes, NULL};

/* Codes of 16 bits, which are there: the sections lie one after the other. */
static void describe_sections(const int16_t *codes, uint8_t n_sections, qg_wide_matrix *wide, const qg_matrix *matrix)
{
    const qg_packing packing = {qg_affine_packed, wide->sections};
    const uint16_t n_rows = (uint16_t)(matrix->n_rows / n_sections);
    for (uint8_t i = 0; i < n_sections; ++i) {
        const qg_section section = QG_WIDE_SECTION(codes + (size_t)i * n_rows * matrix->n_columns, n_rows);
        wide->sections[i] = section;
    }
    wide->packing = packing;
}

static void read_codes(qg_blob *blob, const uint8_t *record, uint8_t n_sections, descriptors *next, qg_matrix *matrix)
{
    const uint8_t is_wide = record[QG_RECORD_MATRIX_WIDE];
    const uint32_t n = (uint32_t)matrix->n_rows * matrix->n_columns;
    const void *const codes = find_array(blob, record + QG_RECORD_MATRIX_CODES, n, is_wide ? 2 : 1);
    matrix->codes = is_wide ? NULL : (const int8_t *)codes;
    matrix->packing = is_wide ? &next->wide->packing : &in_bytes;
    if (is_wide && codes != NULL) {
        describe_sections((const int16_t *)codes, n_sections, next->wide, matrix);
        ++next->wide;
    }
}

/* A matrix of as many sections as there are gates, or of one. */
static void read_matrix(qg_blob *blob, const uint8_t *record, uint8_t n_sections, descriptors *next, qg_matrix *matrix)
{
    const uint16_t n_rows = matrix->n_rows;
    refuse_if(blob, record[QG_RECORD_MATRIX_WIDE] > 1, QG_LOAD_RESERVED);
    refuse_if(blob, qg_blob_u16(record + QG_RECORD_MATRIX_ZEROS) != 0, QG_LOAD_RESERVED);
    read_codes(blob, record, n_sections, next, matrix);
    matrix->multipliers = (const uint16_t *)find_array(blob, record + QG_RECORD_MATRIX_MULTIPLIERS, n_rows, 2);
    matrix->shifts = (const uint8_t *)find_array(blob, record + QG_RECORD_MATRIX_SHIFTS, n_rows, 1);
    matrix->left_shift = record[QG_RECORD_MATRIX_LEFT_SHIFT];
    matrix->first_shift = 0;
}

/* Gate, candidate, and the format of the state [R18, R19]. */
static void read_gru_functions(qg_blob *blob, const uint8_t *record, qg_gru *gru)
{
    static uint16_t (*const gates[])(int32_t) = {qg_sigmoid, qg_hard_sigmoid};
    static int16_t (*const candidates[])(int32_t) = {qg_tanh, qg_relu, qg_linear, qg_signed_sigmoid, qg_linear};
    const uint8_t gate = record[QG_RECORD_GRU_GATE];
    const uint8_t candidate = record[QG_RECORD_GRU_CANDIDATE];
    const int8_t bits = (int8_t)record[QG_RECORD_GRU_FRACTION_BITS];
    const uint8_t bounded = candidate != QG_CANDIDATE_RELU && candidate != QG_CANDIDATE_LINEAR;
    const int8_t most_bits = bounded ? 15 : 31;
    gru->state_fraction_bits = bits;
    gru->gate_kind = gate;
    gru->candidate_kind = candidate;
    require_zeros(blob, record + QG_RECORD_GRU_ZEROS);
    if (gate > QG_GATE_HARD_SIGMOID || candidate > QG_CANDIDATE_HARD_TANH) {
        refuse_if(blob, 1, QG_LOAD_FUNCTION);
        return;
    }
    refuse_if(blob, bits < -most_bits || bits > most_bits, QG_LOAD_FRACTION_BITS);
    gru->gate = gates[gate];
    gru->candidate = candidates[candidate];
    gru->state_shift = (uint8_t)(bounded ? 15 - bits : 0);
}

static void read_gru(qg_blob *blob, const uint8_t *record, uint16_t n_inputs, descriptors *next)
{
    qg_gru *const gru = next->gru++;
    const uint16_t n_units = qg_blob_u16(record + QG_RECORD_SIZE);
    const uint16_t n_rows = (uint16_t)(3 * n_units);
    gru->input.n_rows = gru->recurrent.n_rows = n_rows;
    gru->input.n_columns = n_inputs;
    gru->recurrent.n_columns = n_units;
    read_gru_functions(blob, record, gru);
    read_matrix(blob, record + QG_RECORD_GRU_INPUT, 3, next, &gru->input);
    read_matrix(blob, record + QG_RECORD_GRU_RECURRENT, 3, next, &gru->recurrent);
    gru->bias = find_array(blob, record + QG_RECORD_GRU_BIAS, n_rows, 4);
    gru->recurrent_bias = find_optional_array(blob, record + QG_RECORD_GRU_RECURRENT_BIAS, n_units, 4);
    gru->initial_state = (const int16_t *)find_optional_array(blob, record + QG_RECORD_GRU_INITIAL_STATE, n_units, 2);
    gru->step = gru->recurrent_bias == NULL ? qg_gru_reset_before : qg_gru_reset_after;
    gru->n_units = n_units;
    gru->bias_shift = 0;
    if (blob->refused == 0) {
        blob->refused = qg_prove_gru(gru);
    }
}

/* Activation, and the format of the output [R14]. */
static void read_activation(qg_blob *blob, const uint8_t *record, qg_dense *dense)
{
    static int16_t (*const activations[])(int32_t) = {qg_linear, qg_relu, qg_signed_sigmoid, qg_tanh};
    const uint8_t activation = record[QG_RECORD_DENSE_ACTIVATION];
    const int8_t bits = (int8_t)record[QG_RECORD_DENSE_FRACTION_BITS];
    dense->activation_kind = activation;
    dense->output_fraction_bits = bits;
    if (activation > QG_ACTIVATION_TANH) {
        refuse_if(blob, 1, QG_LOAD_FUNCTION);
        return;
    }
    const uint8_t free = activation == QG_ACTIVATION_LINEAR || activation == QG_ACTIVATION_RELU;
    refuse_if(blob, free ? bits < -31 || bits > 31 : bits != 15, QG_LOAD_FRACTION_BITS);
    dense->activation = activations[activation];
}

static void read_dense(qg_blob *blob, const uint8_t *record, uint16_t n_inputs, descriptors *next)
{
    qg_dense *const dense = next->dense++;
    const uint16_t n_rows = qg_blob_u16(record + QG_RECORD_SIZE);
    dense->matrix.n_rows = n_rows;
    dense->matrix.n_columns = n_inputs;
    read_activation(blob, record, dense);
    read_matrix(blob, record + QG_RECORD_DENSE_MATRIX, 1, next, &dense->matrix);
    dense->bias = (const int32_t *)find_array(blob, record + QG_RECORD_DENSE_BIAS, n_rows, 4);
    if (blob->refused == 0) {
        blob->refused = qg_prove_dense(dense);
    }
}

static void read_embedding(qg_blob *blob, const uint8_t *record, qg_embedding *embedding)
{
    embedding->n_tokens = qg_blob_u16(record + QG_RECORD_SIZE);
    embedding->n_outputs = qg_blob_u16(record + QG_RECORD_EMBEDDING_OUTPUTS);
    embedding->codes = (const int8_t *)find_array(blob, record + QG_RECORD_EMBEDDING_CODES,
                                                  (uint32_t)embedding->n_tokens * embedding->n_outputs, 1);
}

/* All layers; their kinds and sizes have been checked. Sets the output's format. */
static void read_layers(qg_blob *blob, descriptors next, qg_model *model)
{
    const uint8_t *record = blob->bytes + qg_records_at(blob);
    uint16_t n_inputs = model->n_inputs;
    for (uint8_t layer = 0; layer < model->n_layers && blob->refused == 0; ++layer) {
        switch (model->kinds[layer]) {
        case QG_GRU:
            read_gru(blob, record, n_inputs, &next);
            n_inputs = next.gru[-1].n_units;
            model->output_fraction_bits = next.gru[-1].state_fraction_bits;
            record += QG_GRU_BYTES;
            break;
        case QG_DENSE:
            read_dense(blob, record, n_inputs, &next);
            n_inputs = next.dense[-1].matrix.n_rows;
            model->output_fraction_bits = next.dense[-1].output_fraction_bits;
            record += QG_DENSE_BYTES;
            break;
        case QG_EMBEDDING:
            read_embedding(blob, record, next.embedding);
            n_inputs = next.embedding->n_outputs;
            record += QG_EMBEDDING_BYTES;
            break;
        default: /* a reversal is nothing but its kind */
            break;
        }
    }
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

/* Descriptors, then 16-bit values: h, residual, u, r, n, product and vectors. Less than 2^21. */
static uint32_t needed_bytes(const qg_shape *shape)
{
    const uint32_t values =
        5 * (uint32_t)shape->n_units + shape->product_units + (uint32_t)shape->n_vectors * shape->vector_width;
    return (uint32_t)(shape->n_grus * sizeof(qg_gru) + shape->n_dense * sizeof(qg_dense) +
                      shape->has_embedding * sizeof(qg_embedding) + shape->n_wide * sizeof(qg_wide_matrix)) +
           2 * values;
}

/* The next n_bytes of the memory; NULL for none. Sizes of descriptors are multiples of their alignment. */
static void *take(uint8_t **memory, size_t n_bytes)
{
    void *const taken = *memory;
    *memory += n_bytes;
    return n_bytes == 0 ? NULL : taken;
}

/* Divides the memory. */
static descriptors place(const qg_shape *shape, void *memory, qg_loaded *loaded)
{
    uint8_t *next = (uint8_t *)memory;
    const size_t units_bytes = 2 * (size_t)shape->n_units;
    const size_t vector_bytes = 2 * (size_t)shape->vector_width;
    descriptors placed;
    placed.gru = (qg_gru *)take(&next, shape->n_grus * sizeof(qg_gru));
    placed.dense = (qg_dense *)take(&next, shape->n_dense * sizeof(qg_dense));
    placed.embedding = (qg_embedding *)take(&next, shape->has_embedding * sizeof(qg_embedding));
    placed.wide = (qg_wide_matrix *)take(&next, shape->n_wide * sizeof(qg_wide_matrix));
    loaded->h = (int16_t *)take(&next, units_bytes);
    loaded->residual = (uint16_t *)take(&next, units_bytes);
    loaded->scratch.gates.u = (uint16_t *)take(&next, units_bytes);
    loaded->scratch.gates.r = (uint16_t *)take(&next, units_bytes);
    loaded->scratch.gates.n = (int16_t *)take(&next, units_bytes);
    loaded->scratch.product = (int16_t *)take(&next, 2 * (size_t)shape->product_units);
    loaded->scratch.vectors[0] = (int16_t *)take(&next, shape->n_vectors > 0 ? vector_bytes : 0);
    loaded->scratch.vectors[1] = (int16_t *)take(&next, shape->n_vectors > 1 ? vector_bytes : 0);
    return placed;
}

static void describe(const qg_blob *blob, const qg_shape *shape, descriptors placed, qg_model *model)
{
    const uint8_t n_before_head = (uint8_t)(shape->n_dense - shape->n_head);
    model->step = n_before_head != 0 || shape->has_embedding ? qg_step_layers : qg_step;
    model->kinds = blob->bytes + QG_HEADER_BYTES;
    model->grus = placed.gru;
    model->dense = placed.dense;
    model->head = shape->n_head == 0 ? NULL : placed.dense + n_before_head;
    model->embedding = placed.embedding;
    model->bidirectionals = NULL;
    model->digest = blob->bytes + QG_HEADER_DIGEST;
    model->n_layers = blob->bytes[QG_HEADER_LAYERS];
    model->n_grus = shape->n_grus;
    model->n_head = shape->n_head;
    model->last_step = blob->bytes[QG_HEADER_LAST_STEP];
    model->n_inputs = qg_blob_u16(blob->bytes + QG_HEADER_INPUTS);
    model->n_units = shape->n_units;
    model->n_outputs = shape->n_outputs;
}

/* A token's number has no fraction bits [R21]. */
static void read_input_fraction_bits(qg_blob *blob, qg_model *model)
{
    const int8_t most_bits = model->embedding == NULL ? 31 : 0;
    const int8_t *const bits =
        (const int8_t *)find_array(blob, blob->bytes + QG_HEADER_INPUT_FRACTION_BITS, model->n_inputs, 1);
    model->input_fraction_bits = bits;
    for (uint16_t i = 0; i < model->n_inputs && blob->refused == 0; ++i) {
        refuse_if(blob, QG_READ_S8(bits + i) < -most_bits || QG_READ_S8(bits + i) > most_bits, QG_LOAD_FRACTION_BITS);
    }
}

/* Everything but where blob and memory are. */
static int8_t load(qg_blob *blob, uint32_t n_bytes, void *memory, uint32_t memory_bytes, qg_loaded *loaded)
{
    qg_shape shape;
    int8_t refused = check_envelope(blob, n_bytes);
    if (refused == 0) {
        refused = check_header(blob);
    }
    if (refused == 0) {
        refused = qg_find_shape(blob, &shape);
    }
    if (refused != 0) {
        return refused;
    }
    loaded->memory_bytes = needed_bytes(&shape);
    if (loaded->memory_bytes > memory_bytes) {
        return QG_LOAD_MEMORY;
    }
    const descriptors placed = place(&shape, memory, loaded);
    describe(blob, &shape, placed, &loaded->model);
    read_input_fraction_bits(blob, &loaded->model);
    read_layers(blob, placed, &loaded->model);
    return blob->refused;
}

int8_t qg_load(const uint8_t *blob, uint32_t n_bytes, void *memory, uint32_t memory_bytes, qg_loaded *loaded)
{
    qg_blob self = {blob, 0, 0};
    if ((uintptr_t)blob % 4 != 0 || (uintptr_t)memory % sizeof(void *) != 0) {
        return QG_LOAD_MISALIGNED;
    }
    return load(&self, n_bytes, memory, memory_bytes, loaded);
}

#endif
