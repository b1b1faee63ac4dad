/* quantgru: gated recurrent networks in fixed point. The kernel library.
 *
 * The numbers are defined in SPEC.md; rules are cited as [R1]. An exported model consists of descriptors of the types
 * below, and of wrappers with its own name (NAME_reset, NAME_step, NAME_output, or NAME_run for a model that needs a
 * whole sequence): most programs call only those. Nothing here allocates, keeps static data that changes, or uses float
 * or 64-bit integers. Only self-tests can fail, and runs with a wrong number of steps.
 *
 * Formats are written s16f12: signed or unsigned, total bits, fraction bits.
 */
#ifndef QUANTGRU_H
#define QUANTGRU_H

#include "quantgru_port.h"

#include <stddef.h>
#include <stdint.h>

#if !defined(QG_KERNELS) || !defined(QG_DESCRIPTOR)
#error "quantgru_port.h does not define QG_KERNELS and QG_DESCRIPTOR: see the one that comes with the library"
#endif

/* Exported code checks both: the major number must be equal, for it names the numbers, and the minor one not less. */
#define QG_SPEC_MAJOR 1
#define QG_SPEC_MINOR 2

/* Exported code checks this, too. Raised when a descriptor below changes, or the order of codes in memory. */
#define QG_EXPORT_FORMAT 4

#define QG_DIGEST_BYTES 32

/* What a function returns that can fail; 0 if it did not. */
enum {
    QG_SELFTEST_FAILED = -1, /* other numbers than the simulator's: do not use this build */
    QG_WRONG_STEPS = -2      /* a sequence without a step, or longer than the work space */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Descriptors, which are constants: an AVR has them in flash, where C, but not C++, can read their fields. */
QG_DESCRIPTOR(struct qg_section) qg_section;
QG_DESCRIPTOR(struct qg_packing) qg_packing;
QG_DESCRIPTOR(struct qg_matrix) qg_matrix;
QG_DESCRIPTOR(struct qg_gru) qg_gru;
QG_DESCRIPTOR(struct qg_dense) qg_dense;
QG_DESCRIPTOR(struct qg_embedding) qg_embedding;
QG_DESCRIPTOR(struct qg_bidirectional) qg_bidirectional;
QG_DESCRIPTOR(struct qg_model) qg_model;
QG_DESCRIPTOR(uint8_t) qg_kind;

/* Rows that are multiplied together, and lie in memory together: column by column. */
#define QG_BLOCK_ROWS 8

/* Rows of a matrix whose codes have `bits` each: as many blocks of QG_BLOCK_ROWS rows as there are, column by column. A
 * column has as many bytes as a code has bits, with the first row in the lowest bits of the first byte; codes of 16
 * bits are an array of int16_t. The rows that are left are one more block, with zeros, if they are more than `bits`;
 * else each lies by itself, in codes of QG_ROW_CODE_BYTES. */
struct qg_section {
    const int8_t *codes; /* QG_CONSTANT */
#if QG_KERNELS == QG_KERNELS_AVR
    /* qg_dot_packed_row, or qg_dot_wide_row for codes of 16 bits: the dot product of a row of the section with x. */
    int32_t (*dot)(const qg_section *section, uint16_t row, uint16_t n_columns, const int16_t *x);
#else
    /* qg_dot_block_2 ... qg_dot_block_8, qg_dot_block_16: the dot products of a block with x [n_columns]. */
    void (*dot)(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);
    /* qg_dot_row, or qg_dot_row_16 for codes of 16 bits: that of a row by itself. */
    int32_t (*dot_row)(const int8_t *codes, uint16_t n_columns, const int16_t *x);
#endif
    uint16_t n_rows;
    uint8_t bits; /* 2 ... 8, or 16 */
};

/* Bytes of a code of a row that lies by itself, in a section of codes of `bits`. */
#define QG_ROW_CODE_BYTES(bits) ((bits) > 8 ? 2u : 1u)

/* A section of an array of int8_t with codes of 2 ... 8 bits, and one of an array of int16_t. */
#if QG_KERNELS == QG_KERNELS_AVR

#define QG_SECTION(codes, n_rows, bits)                                                                                \
    {                                                                                                                  \
        codes, qg_dot_packed_row, n_rows, bits                                                                         \
    }
#define QG_WIDE_SECTION(codes, n_rows)                                                                                 \
    {                                                                                                                  \
        (const int8_t *)(codes), qg_dot_wide_row, n_rows, 16                                                           \
    }

/* A row of a matrix, and where its codes are if each is a byte. */
typedef struct qg_row {
    uint16_t number;
    uint8_t in_block; /* 0 ... QG_BLOCK_ROWS - 1; 0 for a row that lies by itself */
    uint8_t stride;   /* bytes from one code to the next */
} qg_row;

/* The dot product of a row with x [n_columns], requantized [R4]. */
typedef int32_t qg_affine(const qg_matrix *matrix, qg_row row, const int16_t *x);

#else

#define QG_SECTION(codes, n_rows, bits)                                                                                \
    {                                                                                                                  \
        codes, qg_dot_block_##bits, qg_dot_row, n_rows, bits                                                           \
    }
#define QG_WIDE_SECTION(codes, n_rows)                                                                                 \
    {                                                                                                                  \
        (const int8_t *)(codes), qg_dot_block_16, qg_dot_row_16, n_rows, 16                                            \
    }

/* Adds rows first_row ... first_row + n_rows - 1, requantized, to sums [R4]. Reads x [n_columns]. first_row is the
 * first row of a block, n_rows at least 1. */
typedef void qg_affine(const qg_matrix *matrix, size_t first_row, size_t n_rows, const int16_t *x, int32_t *sums);

#endif

/* How the rows of a matrix lie in memory. What computes with them so is in no image that has none. */
struct qg_packing {
    qg_affine *affine;          /* qg_affine_bytes, qg_affine_packed; with short scales qg_affine_..._short */
    const qg_section *sections; /* of a gate each, or of gates whose blocks are full; NULL where each code is a byte */
};

/* Rows of weights, each with its own scale [R4]. Arrays are QG_CONSTANT.
 *
 * The rows of a gate of a GRU, or all rows of a dense layer, lie one after the other: as many blocks of QG_BLOCK_ROWS
 * rows as there are, each column by column, then the rows that are left, each by itself.
 *
 * Scales of a model are exact or short, all of them. A short one is a byte b: m = 2^9 (32 + b % 32), s = first_shift +
 * b / 32. */
struct qg_matrix {
    const int8_t *codes; /* n_rows n_columns of them; NULL if they lie in sections */
    const qg_packing *packing;
    const uint16_t *multipliers; /* [n_rows], m: 2^14 ... 2^15 - 1; NULL if scales are short */
    const uint8_t *shifts;       /* [n_rows], s: 1 ... 30; or short scales */
    uint16_t n_rows;
    uint16_t n_columns;
    uint8_t left_shift;  /* k: |accumulator| 2^k < 2^31, proved when the model was quantized */
    uint8_t first_shift; /* of short scales, the least s; else 0 */
};

/* Kinds of layers, of their functions and of merging, with the numbers of the digest [R17]. */
enum { QG_GRU = 1, QG_DENSE = 2, QG_EMBEDDING = 3, QG_REVERSE = 4, QG_BIDIRECTIONAL = 5 };
enum { QG_GATE_SIGMOID = 0, QG_GATE_HARD_SIGMOID = 1 };
enum {
    QG_CANDIDATE_TANH = 0,
    QG_CANDIDATE_RELU = 1,
    QG_CANDIDATE_LINEAR = 2,
    QG_CANDIDATE_SIGMOID = 3,
    QG_CANDIDATE_HARD_TANH = 4
};
enum { QG_ACTIVATION_LINEAR = 0, QG_ACTIVATION_RELU = 1, QG_ACTIVATION_SIGMOID = 2, QG_ACTIVATION_TANH = 3 };
enum { QG_MERGE_CONCAT = 0, QG_MERGE_SUM = 1, QG_MERGE_MUL = 2, QG_MERGE_AVE = 3 };

/* u, r and n of the last step, as the step leaves them. */
typedef struct qg_gates {
    uint16_t *u; /* u16f15, 0 ... 2^15; the update gate is z = 2^15 - u */
    uint16_t *r; /* u16f15, 0 ... 2^15 */
    int16_t *n;  /* in the state's format */
} qg_gates;

/* One GRU layer. Gates stand in the order z, r, n. h and n are s16 with state_fraction_bits. Biases are QG_CONSTANT
 * arrays of int32_t; or, where scales are short, of int16_t b, which stands for b 2^bias_shift. */
struct qg_gru {
    /* qg_gru_reset_after or qg_gru_reset_before; qg_gru_reset_..._short with short biases. `product` has room for
     * n_units and is used by reset-before only. */
    void (*step)(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual, const qg_gates *gates,
                 int16_t *product);
    uint16_t (*gate)(int32_t a);     /* qg_sigmoid or qg_hard_sigmoid */
    int16_t (*candidate)(int32_t a); /* [R19] qg_tanh, qg_relu, qg_linear (also of hard_tanh) or qg_signed_sigmoid */
    struct qg_matrix input;          /* [3 n_units][inputs] */
    struct qg_matrix recurrent;      /* [3 n_units][n_units] */
    const void *bias;                /* [3 n_units]; z, r: s32f14 for sigmoid, s32f15 for hard_sigmoid; n: by R19 */
    const void *recurrent_bias;      /* [n_units], of n inside the reset product; NULL for reset-before */
    const int16_t *initial_state;    /* [n_units], h after a reset; NULL: zeros */
    uint16_t n_units;
    uint8_t state_shift;        /* what `candidate` returns to n: 15 - state_fraction_bits; 0 for relu and linear */
    int8_t state_fraction_bits; /* -31 ... 31 */
    uint8_t gate_kind;          /* QG_GATE_... */
    uint8_t candidate_kind;     /* QG_CANDIDATE_... */
    uint8_t bias_shift;         /* of short biases; else 0 */
};

/* One dense layer. */
struct qg_dense {
    int16_t (*activation)(int32_t a); /* qg_linear, qg_relu, qg_signed_sigmoid or qg_tanh */
    struct qg_matrix matrix;
    const int32_t *bias;     /* [n_rows], in the output's format for linear and relu, else s32f14 */
    uint8_t activation_kind; /* QG_ACTIVATION_... */
    int8_t output_fraction_bits;
};

/* A vector for each token. */
struct qg_embedding {
    const int8_t *codes; /* [n_tokens][n_outputs], QG_CONSTANT */
    uint16_t n_tokens;   /* 1 ... 32768 */
    uint16_t n_outputs;
};

/* How the two directions of a bidirectional layer come together [R23]. */
struct qg_bidirectional {
    int16_t (*merge)(int16_t forward, int16_t backward); /* qg_merge_mean, qg_merge_product; NULL: concat */
    uint8_t merge_kind;                                  /* QG_MERGE_... */
    uint8_t final;                                       /* 1: one vector, of the states after all steps */
};

/* The arrays of a model's scratch; wrappers point it into their own struct. Nothing in it need survive between calls,
 * so that models may share it; the gates can be read until the next step. */
typedef struct qg_scratch {
    qg_gates gates;      /* [n_units] each, the layers one after the other */
    int16_t *product;    /* [largest n_units of a reset-before layer] */
    int16_t *vectors[2]; /* what layers without a state hand to the next layer: they take turns */
} qg_scratch;

/* A model: the kinds of its layers in the order in which they run, and the layers of each kind in that order. */
struct qg_model {
    /* qg_step; qg_step_layers where other layers than GRU stand before the head; NULL if it needs a whole sequence. */
    void (*step)(const qg_model *model, const int16_t *x, int16_t *h, uint16_t *residual, const qg_scratch *scratch);
    const qg_kind *kinds;                   /* [n_layers]: QG_GRU ... QG_BIDIRECTIONAL */
    const qg_gru *grus;                     /* [n_grus], of a bidirectional layer forward, then backward */
    const qg_dense *dense;                  /* those before the head, then those of the head */
    const qg_dense *head;                   /* [n_head] of `dense`: at the end, they run only for a wanted output */
    const qg_embedding *embedding;          /* NULL: none */
    const qg_bidirectional *bidirectionals; /* NULL: none */
    const int8_t *input_fraction_bits;      /* [n_inputs], QG_CONSTANT */
    const uint8_t *digest;                  /* [QG_DIGEST_BYTES], QG_CONSTANT */
    uint8_t n_layers;
    uint8_t n_grus;
    uint8_t n_head;
    uint8_t last_step; /* 1: the output has a meaning only after the last step of a sequence */
    int8_t output_fraction_bits;
    uint16_t n_inputs;
    uint16_t n_units; /* of all GRU layers together */
    uint16_t n_outputs;
};

/* Inputs of a sequence, and the check value that its run must give [R24]. */
typedef struct qg_selftest_vector {
    const int16_t *inputs; /* [n_steps][n_inputs], QG_CONSTANT */
    uint32_t check;
    uint16_t n_steps;
} qg_selftest_vector;

/* Models that run step by step: no bidirectional layer, and no reversal after the first GRU layer [R22]. */

/* h [n_units] of all GRU layers, one after the other, to the initial states, residual [n_units] to zero [R13]. */
void qg_reset(const qg_model *model, int16_t *h, uint16_t *residual);

/* One time step of all GRU layers: reads x [n_inputs], updates h and residual [R9 ... R12]. Programs for any model call
 * model->step. */
void qg_step(const qg_model *model, const int16_t *x, int16_t *h, uint16_t *residual, const qg_scratch *scratch);

/* The same of all layers before the head, where dense layers or an embedding are among them. */
void qg_step_layers(const qg_model *model, const int16_t *x, int16_t *h, uint16_t *residual, const qg_scratch *scratch);

/* The head on the last GRU layer's h [R14]; without a head that h itself. Writes out [n_outputs]. */
void qg_output(const qg_model *model, const int16_t *h, const qg_scratch *scratch, int16_t *out);

/* How many candidates of the last step stood at a limit of their format [R25]; n [n_units] is scratch->gates.n. Where
 * it is often above 0, the state's format is too small for these inputs. */
uint16_t qg_saturated(const qg_model *model, const int16_t *n);

/* CRC-32 (IEEE 802.3) of h, residual and out after one step, continued from `crc`, first 0 [R16]. */
uint32_t qg_step_check(const qg_model *model, const int16_t *h, const uint16_t *residual, const int16_t *out,
                       uint32_t crc);

/* Models that need a whole sequence. Layer after layer runs over all steps, in place: there is one row of memory for a
 * step. A reversal reads the rows from the other end, and moves none. */

/* The arrays of a run; wrappers point it into their own struct. Nothing in it need survive between runs. */
typedef struct qg_work {
    qg_scratch scratch;  /* gates: [largest n_units] */
    int16_t *h;          /* [largest n_units]; [2 n_units] for a bidirectional layer that gives one vector */
    uint16_t *residual;  /* [largest n_units] */
    uint16_t *saturated; /* set by a run: candidates at a limit of their format [R25], up to 65535; NULL: not counted */
    int16_t *rows;       /* [most_steps][row_values]; NULL if row_values is 0: no layer gives more than one vector */
    uint16_t row_values; /* as many as a layer before the head puts out at a step; for a bidirectional layer that reads
                          * rows, also as many as it reads and one direction puts out */
    uint16_t most_steps;
} qg_work;

/* Reads inputs [n_steps][n_inputs], all in RAM, and writes outputs [n_steps][n_outputs], for a model with last_step
 * outputs [n_outputs] [R24]. The GRU layers begin with the h [n_units] of initial_states, one after the other, or with
 * their own if it is NULL. Returns 0, or QG_WRONG_STEPS for n_steps of 0 or more than work->most_steps. */
int8_t qg_run(const qg_model *model, const int16_t *inputs, uint16_t n_steps, const int16_t *initial_states,
              const qg_work *work, int16_t *outputs);

/* Runs `vector` and compares check values: 0, QG_SELFTEST_FAILED, or QG_WRONG_STEPS. Uses inputs [n_steps][n_inputs]
 * and outputs, as qg_run writes them, as work space. */
int8_t qg_run_selftest(const qg_model *model, const qg_selftest_vector *vector, const qg_work *work, int16_t *inputs,
                       int16_t *outputs);

/* The parts. */

/* The head, of at least one layer, on x, which the layer before it puts out [R14]. Writes out [n_outputs]. */
void qg_head(const qg_model *model, const int16_t *x, int16_t *const vectors[2], int16_t *out);

/* How many of n [n_units] stand at a limit of their format [R25]. */
uint16_t qg_gru_saturated(const qg_gru *gru, const int16_t *n);

/* h and residual of one layer [R13]. */
void qg_gru_reset(const qg_gru *gru, int16_t *h, uint16_t *residual);

void qg_gru_reset_after(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual, const qg_gates *gates,
                        int16_t *product);
void qg_gru_reset_before(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual, const qg_gates *gates,
                         int16_t *product);
void qg_gru_reset_after_short(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                              const qg_gates *gates, int16_t *product);
void qg_gru_reset_before_short(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                               const qg_gates *gates, int16_t *product);
void qg_dense_layer(const qg_dense *dense, const int16_t *x, int16_t *out);
void qg_look_up(const qg_embedding *embedding, const int16_t *x, int16_t *out); /* [R21] x is a token */

uint16_t qg_sigmoid(int32_t a);       /* [R7] s32f14 -> u16f15, 0 ... 2^15 */
uint16_t qg_hard_sigmoid(int32_t a);  /* [R18] s32f15 -> u16f15, 0 ... 2^15 */
int16_t qg_tanh(int32_t a);           /* [R8] s32f14 -> s16f15, -32767 ... 32767 */
int16_t qg_signed_sigmoid(int32_t a); /* s32f14 -> s16f15, 0 ... 32767 */
int16_t qg_linear(int32_t a);         /* saturates */
int16_t qg_relu(int32_t a);           /* saturates */

int16_t qg_merge_mean(int16_t forward, int16_t backward);    /* [R23] sum and ave, which mean different things by it */
int16_t qg_merge_product(int16_t forward, int16_t backward); /* [R23] mul */

/* The rows of a matrix whose codes are bytes, and of one whose codes lie in sections; the same with short scales. */
qg_affine qg_affine_bytes;
qg_affine qg_affine_packed;
qg_affine qg_affine_bytes_short;
qg_affine qg_affine_packed_short;

#if QG_KERNELS == QG_KERNELS_AVR
/* The dot product of a row of a section with x. */
int32_t qg_dot_packed_row(const qg_section *section, uint16_t row, uint16_t n_columns, const int16_t *x);
int32_t qg_dot_wide_row(const qg_section *section, uint16_t row, uint16_t n_columns, const int16_t *x);
#endif

/* Parts of the layers for QG_KERNELS other than those of AVRs. */

/* The dot product of one row of n_columns weights with x; the second one for an array of int16_t. */
int32_t qg_dot_row(const int8_t *codes, uint16_t n_columns, const int16_t *x);
int32_t qg_dot_row_16(const int8_t *codes, uint16_t n_columns, const int16_t *x);

/* Those of a block of rows with codes of 2 ... 8 or of 16 bits, which lie as in a section. */
void qg_dot_block_2(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);
void qg_dot_block_3(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);
void qg_dot_block_4(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);
void qg_dot_block_5(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);
void qg_dot_block_6(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);
void qg_dot_block_7(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);
void qg_dot_block_8(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);
void qg_dot_block_16(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS]);

/* CRC-32 (IEEE 802.3) of bytes, and of 16-bit values, low byte first; continued from `crc`, first 0 [R16]. */
uint32_t qg_crc32(uint32_t crc, const uint8_t *bytes, size_t n_bytes);
uint32_t qg_check_values(uint32_t crc, const void *values, uint16_t n);

/* A raw input from a number of sensor counts, when the model was calibrated in counts [R15]. Saturates.
 * -31 <= fraction_bits <= 31. */
int16_t qg_input_from_counts(int32_t counts, int8_t fraction_bits);

#ifdef __cplusplus
}
#endif

#endif
