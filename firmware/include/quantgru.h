/* quantgru: gated recurrent networks in fixed point. The kernel library.
 *
 * The numbers are defined in SPEC.md; rules are cited as [R1]. An exported model consists of descriptors of the types
 * below, and of wrappers with its own name (NAME_reset, NAME_step, NAME_output): most programs call only those.
 * Nothing here allocates, keeps static data that changes, uses float or 64-bit integers, or can fail (but for the
 * self-test).
 *
 * Formats are written s16f12: signed or unsigned, total bits, fraction bits.
 */
#ifndef QUANTGRU_H
#define QUANTGRU_H

#include "quantgru_port.h"

#include <stddef.h>
#include <stdint.h>

/* Exported code checks the major number: it must be equal, for it names the numbers. */
#define QG_SPEC_MAJOR 1
#define QG_SPEC_MINOR 0

/* Exported code checks this, too. Raised when a descriptor below changes, or the order of codes in memory. */
#define QG_EXPORT_FORMAT 1

#define QG_DIGEST_BYTES 32

#ifdef __cplusplus
extern "C" {
#endif

/* Rows that are multiplied together, and lie in memory together: column by column. */
#define QG_BLOCK_ROWS 8

/* Rows of weights, each with its own scale [R4]. Arrays are QG_CONSTANT.
 *
 * The rows of a section (one gate of a GRU, all rows of a dense layer) lie one after the other: as many blocks of
 * QG_BLOCK_ROWS rows as there are, each column by column, then the rows that are left, each by itself. */
typedef struct qg_matrix {
    const int8_t *codes;         /* n_rows n_columns of them */
    const uint16_t *multipliers; /* [n_rows], m: 2^14 ... 2^15 - 1 */
    const uint8_t *shifts;       /* [n_rows], s: 1 ... 30 */
    uint16_t n_rows;
    uint16_t n_columns;
    uint8_t left_shift; /* k: |accumulator| 2^k < 2^31, proved when the model was quantized */
} qg_matrix;

/* u, r and n of the last step, as the step leaves them. */
typedef struct qg_gates {
    uint16_t *u; /* u16f15, 0 ... 2^15; the update gate is z = 2^15 - u */
    uint16_t *r; /* u16f15, 0 ... 2^15 */
    int16_t *n;  /* s16f15 */
} qg_gates;

typedef struct qg_gru qg_gru;

/* One GRU layer. Gates stand in the order z, r, n. */
struct qg_gru {
    /* qg_gru_reset_after or qg_gru_reset_before. `product` has room for n_units and is used by reset-before only. */
    void (*step)(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual, const qg_gates *gates,
                 int16_t *product);
    qg_matrix input;               /* [3 n_units][inputs] */
    qg_matrix recurrent;           /* [3 n_units][n_units] */
    const int32_t *bias;           /* [3 n_units], s32f14 */
    const int32_t *recurrent_bias; /* [n_units], s32f14, of n inside the reset product; NULL for reset-before */
    uint16_t n_units;
};

/* One dense layer. */
typedef struct qg_dense {
    int16_t (*activation)(int32_t a); /* qg_linear, qg_relu, qg_dense_sigmoid or qg_tanh */
    qg_matrix matrix;
    const int32_t *bias;     /* [n_rows], in the output's format for linear and relu, else s32f14 */
    uint8_t activation_kind; /* [R17] 0 linear, 1 relu, 2 sigmoid, 3 tanh */
    int8_t output_fraction_bits;
} qg_dense;

typedef struct qg_model {
    const qg_gru *grus;
    const qg_dense *head;
    const int8_t *input_fraction_bits; /* [n_inputs], QG_CONSTANT */
    const uint8_t *digest;             /* [QG_DIGEST_BYTES], QG_CONSTANT */
    uint8_t n_grus;
    uint8_t n_dense;
    uint8_t last_step; /* 1: the output has a meaning only after the last step of a sequence */
    int8_t output_fraction_bits;
    uint16_t n_inputs;
    uint16_t n_units; /* of all GRU layers together */
    uint16_t n_outputs;
} qg_model;

/* The arrays of a model's scratch; wrappers point it into their own struct. Nothing in it need survive between calls,
 * so that models may share it; the gates can be read until the next step. */
typedef struct qg_scratch {
    qg_gates gates;    /* [n_units] each, the layers one after the other */
    int16_t *product;  /* [largest n_units of a reset-before layer] */
    int16_t *dense[2]; /* [widest inner dense layer] each: they take turns */
} qg_scratch;

/* Inputs of a few steps from reset, and the check value that they must give. */
typedef struct qg_selftest_vector {
    const int16_t *inputs; /* [n_steps][n_inputs], QG_CONSTANT */
    uint32_t check;
    uint16_t n_steps;
} qg_selftest_vector;

#define QG_SELFTEST_FAILED (-1)

/* h [n_units] and residual [n_units] of all layers, one after the other, to zero [R13]. */
void qg_reset(const qg_model *model, int16_t *h, uint16_t *residual);

/* One time step of all GRU layers: reads x [n_inputs], updates h and residual [R9 ... R12]. */
void qg_step(const qg_model *model, const int16_t *x, int16_t *h, uint16_t *residual, const qg_scratch *scratch);

/* The head on the last layer's h [R14]; without a head the last layer's h itself. Writes out [n_outputs]. */
void qg_output(const qg_model *model, const int16_t *h, const qg_scratch *scratch, int16_t *out);

/* CRC-32 (IEEE 802.3) of h, residual and out after one step, continued from `crc`, first 0 [R16]. */
uint32_t qg_step_check(const qg_model *model, const int16_t *h, const uint16_t *residual, const int16_t *out,
                       uint32_t crc);

/* CRC-32 (IEEE 802.3), continued from `crc`, first 0. */
uint32_t qg_crc32(uint32_t crc, const uint8_t *bytes, size_t n_bytes);

/* Runs the steps of `vector` from reset and compares check values: 0, or QG_SELFTEST_FAILED. Resets h and residual
 * before and after; uses x [n_inputs] and out [n_outputs] as work space. */
int8_t qg_selftest(const qg_model *model, const qg_selftest_vector *vector, int16_t *h, uint16_t *residual,
                   const qg_scratch *scratch, int16_t *x, int16_t *out);

/* The parts. */

void qg_gru_reset_after(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual, const qg_gates *gates,
                        int16_t *product);
void qg_gru_reset_before(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual, const qg_gates *gates,
                         int16_t *product);
void qg_dense_layer(const qg_dense *dense, const int16_t *x, int16_t *out);

uint16_t qg_sigmoid(int32_t a);      /* [R7] s32f14 -> u16f15, 0 ... 2^15 */
int16_t qg_tanh(int32_t a);          /* [R8] s32f14 -> s16f15, -32767 ... 32767 */
int16_t qg_dense_sigmoid(int32_t a); /* s32f14 -> s16f15, 0 ... 32767 */
int16_t qg_linear(int32_t a);        /* saturates */
int16_t qg_relu(int32_t a);          /* saturates */

/* Adds rows first_row ... first_row + n_rows - 1, requantized, to sums [R4]. Reads x [n_columns]. first_row is the
 * first row of a block, n_rows at least 1. */
void qg_affine_add(const qg_matrix *matrix, uint16_t first_row, uint16_t n_rows, const int16_t *x, int32_t *sums);

/* The dot product of one row of n_columns weights with x, and those of a block of rows. */
int32_t qg_dot_row(const int8_t *codes, uint16_t n_columns, const int16_t *x);
void qg_dot_block(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);

/* A raw input from a number of sensor counts, when the model was calibrated in counts [R15]. Saturates. */
int16_t qg_input_from_counts(int32_t counts, int8_t fraction_bits);

#ifdef __cplusplus
}
#endif

#endif
