/* The model under test, received over the line into RAM. Another folder has the same names for one that is compiled in:
 * the build takes one of the two. */
#ifndef HELD_MODEL_H
#define HELD_MODEL_H

#include "port.h"
#include "quantgru_load.h"

#include <string.h>

/* A frame must hold a step; of a model that is not known yet, one of each. */
#define HELD_INPUTS 1
#define HELD_OUTPUTS 1

#define HELD_STEPS 0 /* it runs step by step */

typedef struct held_model {
    uint64_t room[PORT_MODEL_BYTES / 8]; /* the blob, then what qg_load needs, then inputs and outputs */
    qg_loaded loaded;
    int16_t *x;
    int16_t *out;
    uint8_t is_loaded;
} held_model;

/* Room for a model in bytes. */
static inline uint32_t held_room(const held_model *held)
{
    return sizeof held->room;
}

/* NULL if there is no model. */
static inline const qg_model *held_descriptor(const held_model *held)
{
    return held->is_loaded ? &held->loaded.model : NULL;
}

/* Writes a part of a blob, which lies within the room. The model that was there is gone. */
static inline void held_write(held_model *held, uint32_t offset, const uint8_t *bytes, uint16_t n)
{
    held->is_loaded = 0;
    memcpy((uint8_t *)held->room + offset, bytes, n);
}

/* Loads the blob of n_bytes, at most the room. Returns 0, or why there is no model now (PROTOCOL.md, LOAD).
 * most_values is how many inputs, and how many outputs, a frame can hold. */
uint32_t held_load(held_model *held, uint32_t n_bytes, uint16_t most_values);

/* Gates read as zero before the first step. */
static inline void held_reset(held_model *held)
{
    const qg_gates gates = held->loaded.scratch.gates;
    const size_t bytes = held->loaded.model.n_units * sizeof(int16_t);
    memset(gates.u, 0, bytes);
    memset(gates.r, 0, bytes);
    memset(gates.n, 0, bytes);
    qg_reset(&held->loaded.model, held->loaded.h, held->loaded.residual);
}

/* [n_inputs], which a step reads. */
static inline int16_t *held_x(held_model *held)
{
    return held->x;
}

static inline void held_step(held_model *held)
{
    held->loaded.model.step(&held->loaded.model, held->x, held->loaded.h, held->loaded.residual, &held->loaded.scratch);
}

/* Computes the outputs after a step, [n_outputs]. */
static inline const int16_t *held_output(held_model *held)
{
    qg_output(&held->loaded.model, held->loaded.h, &held->loaded.scratch, held->out);
    return held->out;
}

static inline const int16_t *held_h(const held_model *held)
{
    return held->loaded.h;
}

static inline const uint16_t *held_residual(const held_model *held)
{
    return held->loaded.residual;
}

static inline qg_gates held_gates(held_model *held)
{
    return held->loaded.scratch.gates;
}

#endif
