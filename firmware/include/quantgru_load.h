/* quantgru: models that arrive as data, over a line or over the air. The format is defined in BLOB.md.
 *
 *     static uint32_t blob[BLOB_BYTES / 4];   what came in; aligned, and left alone as long as the model is in use
 *     static uint64_t memory[ROOM / 8];       room for descriptors, state and scratch, aligned for pointers
 *     qg_loaded loaded;
 *
 *     if (qg_load((const uint8_t *)blob, sizeof blob, memory, sizeof memory, &loaded) != 0) ... refused
 *     qg_reset(&loaded.model, loaded.h, loaded.residual);
 *     loaded.model.step(&loaded.model, inputs, loaded.h, loaded.residual, &loaded.scratch);
 *     qg_output(&loaded.model, loaded.h, &loaded.scratch, outputs);
 *
 * A model is accepted only if SPEC.md admits it: the bounds of its chapter 7 are proved again, so that running whatever
 * was accepted neither overflows nor leaves its arrays, for any inputs. Where it came from is not checked: who updates
 * over the air signs the blob, and checks the signature first.
 */
#ifndef QUANTGRU_LOAD_H
#define QUANTGRU_LOAD_H

#include "quantgru.h"

#if defined(__AVR__)
#error "constants are read from flash on this target: a model that lies in RAM cannot be run"
#elif defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "a blob is little-endian and used as it lies in memory: it cannot be run on this target"
#endif

#define QG_BLOB_VERSION 1

/* Why a blob is refused: what was found first, in the order of BLOB.md. */
enum {
    QG_LOAD_MISALIGNED = -16, /* the blob is not at a multiple of 4, or the memory not at one of a pointer's size */
    QG_LOAD_MAGIC = -17,      /* no blob */
    QG_LOAD_VERSION = -18,    /* another format, another major number of SPEC.md, or a later minor one */
    QG_LOAD_LENGTH = -19,     /* longer than the bytes that are there, or too short for what it must hold */
    QG_LOAD_CRC = -20,        /* damaged */
    QG_LOAD_RESERVED = -21,   /* a byte that must be zero is not, or a flag is neither 0 nor 1 */
    QG_LOAD_LAYERS = -22,     /* unknown kinds, kinds in an order that SPEC.md refuses, or one that needs sequences */
    QG_LOAD_SIZE = -23,       /* a number of inputs, units, outputs or tokens is 0 or too large */
    QG_LOAD_MEMORY = -24,     /* too little memory: loaded->memory_bytes says how much is needed */
    QG_LOAD_OFFSET = -25,     /* an array is not aligned, or not inside the blob */
    QG_LOAD_FUNCTION = -26,   /* an unknown gate, candidate or activation */
    QG_LOAD_FRACTION_BITS = -27, /* out of the range that SPEC.md gives to inputs, candidates or activations */
    QG_LOAD_SCALE = -28,         /* a multiplier, shift or left shift is out of its range [R4] */
    QG_LOAD_OVERFLOW = -29       /* an accumulator or a pre-activation could leave 32 bits */
};

#ifdef __cplusplus
extern "C" {
#endif

/* A model, ready to be reset and run. The inputs [model.n_inputs] and outputs [model.n_outputs] are the caller's. */
typedef struct qg_loaded {
    qg_model model;     /* its arrays stay in the blob, its descriptors are in the memory */
    int16_t *h;         /* [model.n_units], in the memory, as all that follows */
    uint16_t *residual; /* [model.n_units] */
    qg_scratch scratch;
    uint32_t memory_bytes; /* how many bytes from the start of the memory are in use */
} qg_loaded;

/* Checks and loads a blob, which may be followed by other bytes. Reads n_bytes at most. `memory` may be NULL if
 * memory_bytes is 0, to learn how much is needed. Returns 0, or QG_LOAD_...: then nothing but memory_bytes may be read
 * from `loaded`, and that after QG_LOAD_MEMORY only. Whether the constants have the digest that the blob names [R17] is
 * not checked. */
int8_t qg_load(const uint8_t *blob, uint32_t n_bytes, void *memory, uint32_t memory_bytes, qg_loaded *loaded);

#ifdef __cplusplus
}
#endif

#endif
