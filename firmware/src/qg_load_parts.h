/* What the files of the loader share. On targets that cannot load a model they are empty. */
#ifndef QG_LOAD_PARTS_H
#define QG_LOAD_PARTS_H

#include "quantgru.h"

#if !defined(__AVR__) && (!defined(__BYTE_ORDER__) || __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#define QG_LOADER

#include "quantgru_load.h"

/* Bytes of the header and of a layer's record, and where their fields stand (BLOB.md, chapters 2 and 3). */
enum {
    QG_HEADER_BYTES = 52,
    QG_GRU_BYTES = 52,
    QG_DENSE_BYTES = 24,
    QG_EMBEDDING_BYTES = 8,
    QG_CRC_BYTES = 4,

    QG_HEADER_VERSION = 4,
    QG_HEADER_SPEC_MAJOR = 5,
    QG_HEADER_SPEC_MINOR = 6,
    QG_HEADER_LAST_STEP = 7,
    QG_HEADER_LENGTH = 8,
    QG_HEADER_INPUTS = 12,
    QG_HEADER_LAYERS = 14,
    QG_HEADER_ZERO = 15,
    QG_HEADER_INPUT_FRACTION_BITS = 16,
    QG_HEADER_DIGEST = 20,

    QG_RECORD_SIZE = 0, /* units, outputs or tokens */

    QG_RECORD_GRU_GATE = 2,
    QG_RECORD_GRU_CANDIDATE = 3,
    QG_RECORD_GRU_FRACTION_BITS = 4,
    QG_RECORD_GRU_ZEROS = 5,
    QG_RECORD_GRU_INPUT = 8,
    QG_RECORD_GRU_RECURRENT = 24,
    QG_RECORD_GRU_BIAS = 40,
    QG_RECORD_GRU_RECURRENT_BIAS = 44,
    QG_RECORD_GRU_INITIAL_STATE = 48,

    QG_RECORD_DENSE_ACTIVATION = 2,
    QG_RECORD_DENSE_FRACTION_BITS = 3,
    QG_RECORD_DENSE_MATRIX = 4,
    QG_RECORD_DENSE_BIAS = 20,

    QG_RECORD_EMBEDDING_OUTPUTS = 2,
    QG_RECORD_EMBEDDING_CODES = 4,

    QG_RECORD_MATRIX_CODES = 0,
    QG_RECORD_MATRIX_MULTIPLIERS = 4,
    QG_RECORD_MATRIX_SHIFTS = 8,
    QG_RECORD_MATRIX_LEFT_SHIFT = 12,
    QG_RECORD_MATRIX_WIDE = 13,
    QG_RECORD_MATRIX_ZEROS = 14
};

typedef struct qg_blob {
    const uint8_t *bytes;
    uint32_t end;   /* of what layers and arrays may fill: the CRC stands there */
    int8_t refused; /* why, from the first check that failed on; 0: not yet */
} qg_blob;

/* The sections of a matrix with codes of 16 bits: of the gates of a GRU layer, or of all rows of a dense layer. */
typedef struct qg_wide_matrix {
    qg_packing packing;
    qg_section sections[3];
} qg_wide_matrix;

/* What follows from the sizes of the layers. */
typedef struct qg_shape {
    uint16_t n_units;
    uint16_t n_outputs;
    uint16_t product_units; /* of the largest layer that resets before the product */
    uint16_t vector_width;  /* of the widest vector between layers without a state */
    uint16_t n_wide;        /* matrices with codes of 16 bits */
    uint8_t n_vectors;      /* 0 ... 2 */
    uint8_t n_grus;
    uint8_t n_dense;
    uint8_t n_head;
    uint8_t has_embedding;
} qg_shape;

static inline uint16_t qg_blob_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | (uint16_t)bytes[1] << 8);
}

static inline uint32_t qg_blob_u32(const uint8_t *bytes)
{
    return qg_blob_u16(bytes) | (uint32_t)qg_blob_u16(bytes + 2) << 16;
}

/* The records of the layers, behind their kinds. */
static inline uint32_t qg_records_at(const qg_blob *blob)
{
    return (QG_HEADER_BYTES + (uint32_t)blob->bytes[QG_HEADER_LAYERS] + 3) & ~(uint32_t)3;
}

/* Finds the shape; all records lie inside the blob then. Returns 0, or QG_LOAD_LENGTH, _LAYERS or _SIZE. */
int8_t qg_find_shape(const qg_blob *blob, qg_shape *shape);

/* Whether all scales are in their ranges [R4], and no sum can leave 32 bits (SPEC.md, P1 and P2). Returns 0, or
 * QG_LOAD_SCALE or _OVERFLOW. */
int8_t qg_prove_gru(const qg_gru *gru);
int8_t qg_prove_dense(const qg_dense *dense);

#endif

#endif
