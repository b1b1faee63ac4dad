/* The layers of a blob: their kinds, their order and their sizes. */
#include "qg_load_parts.h"

#ifdef QG_LOADER

enum { MOST_GRU_UNITS = 65535 / 3, MOST_TOKENS = 32768 };

/* Layers from the first on. */
typedef struct walk {
    const qg_blob *blob;
    qg_shape *shape;
    uint32_t record; /* of the present layer */
    uint8_t layer;
    uint8_t n_in_turn; /* layers without a state up to the present one, one after the other */
} walk;

static void count_if_wide(qg_shape *shape, const uint8_t *matrix_record)
{
    if (matrix_record[QG_RECORD_MATRIX_WIDE] != 0) {
        ++shape->n_wide;
    }
}

static int8_t add_gru(walk *self)
{
    qg_shape *const shape = self->shape;
    const uint8_t *const record = self->blob->bytes + self->record;
    const uint16_t n_units = qg_blob_u16(record + QG_RECORD_SIZE);
    if (n_units == 0 || n_units > MOST_GRU_UNITS || n_units > UINT16_MAX - shape->n_units) {
        return QG_LOAD_SIZE;
    }
    if (qg_blob_u32(record + QG_RECORD_GRU_RECURRENT_BIAS) == 0 && n_units > shape->product_units) {
        shape->product_units = n_units;
    }
    count_if_wide(shape, record + QG_RECORD_GRU_INPUT);
    count_if_wide(shape, record + QG_RECORD_GRU_RECURRENT);
    shape->n_units = (uint16_t)(shape->n_units + n_units);
    shape->n_outputs = n_units;
    shape->n_head = 0;
    ++shape->n_grus;
    self->n_in_turn = 0;
    return 0;
}

/* The last layer of a model writes its outputs; all others hand a vector on. */
static int8_t add_vector(walk *self, uint16_t n_outputs)
{
    qg_shape *const shape = self->shape;
    if (n_outputs == 0) {
        return QG_LOAD_SIZE;
    }
    shape->n_outputs = n_outputs;
    if (self->layer + 1 == self->blob->bytes[QG_HEADER_LAYERS]) {
        return 0;
    }
    if (n_outputs > shape->vector_width) {
        shape->vector_width = n_outputs;
    }
    if (self->n_in_turn < 2) { /* they take turns */
        ++self->n_in_turn;
    }
    if (self->n_in_turn > shape->n_vectors) {
        shape->n_vectors = self->n_in_turn;
    }
    return 0;
}

static int8_t add_dense(walk *self)
{
    const uint8_t *const record = self->blob->bytes + self->record;
    count_if_wide(self->shape, record + QG_RECORD_DENSE_MATRIX);
    ++self->shape->n_dense;
    ++self->shape->n_head;
    return add_vector(self, qg_blob_u16(record + QG_RECORD_SIZE));
}

static int8_t add_embedding(walk *self)
{
    const uint8_t *const record = self->blob->bytes + self->record;
    const uint16_t n_tokens = qg_blob_u16(record + QG_RECORD_SIZE);
    if (self->layer != 0) {
        return QG_LOAD_LAYERS;
    }
    if (n_tokens == 0 || n_tokens > MOST_TOKENS || qg_blob_u16(self->blob->bytes + QG_HEADER_INPUTS) != 1) {
        return QG_LOAD_SIZE;
    }
    self->shape->has_embedding = 1;
    return add_vector(self, qg_blob_u16(record + QG_RECORD_EMBEDDING_OUTPUTS));
}

/* Goes on behind a record that lies inside the blob. */
static int8_t add_record(walk *self, int8_t (*add)(walk *self), uint32_t n_bytes)
{
    if (self->record > self->blob->end || n_bytes > self->blob->end - self->record) {
        return QG_LOAD_LENGTH;
    }
    const int8_t refused = add(self);
    self->record += n_bytes;
    return refused;
}

static int8_t add_layer(walk *self, uint8_t kind)
{
    switch (kind) {
    case QG_GRU:
        return add_record(self, add_gru, QG_GRU_BYTES);
    case QG_DENSE:
        return add_record(self, add_dense, QG_DENSE_BYTES);
    case QG_EMBEDDING:
        return add_record(self, add_embedding, QG_EMBEDDING_BYTES);
    case QG_REVERSE:
        return self->shape->n_grus == 0 ? 0 : QG_LOAD_LAYERS; /* [R22] */
    default:
        return QG_LOAD_LAYERS;
    }
}

int8_t qg_find_shape(const qg_blob *blob, qg_shape *shape)
{
    static const qg_shape nothing = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    const uint8_t n_layers = blob->bytes[QG_HEADER_LAYERS];
    walk self = {blob, shape, qg_records_at(blob), 0, 0};
    *shape = nothing;
    if (self.record > blob->end) {
        return QG_LOAD_LENGTH;
    }
    for (; self.layer < n_layers; ++self.layer) {
        const int8_t refused = add_layer(&self, blob->bytes[QG_HEADER_BYTES + self.layer]);
        if (refused) {
            return refused;
        }
    }
    return shape->n_grus == 0 ? QG_LOAD_LAYERS : 0;
}

#endif
