/* The model under test, compiled in. Another folder has the same names for one that comes over the line: the build
 * takes one of the two. */
#ifndef HELD_MODEL_H
#define HELD_MODEL_H

#include "model.h"

#include <string.h>

#ifdef MODEL_STEPS
#error "this model needs whole sequences (it has a MODEL_run): the test firmware runs models step by step"
#endif

#define HELD_INPUTS MODEL_INPUTS
#define HELD_OUTPUTS MODEL_OUTPUTS

typedef struct held_model {
    int16_t x[MODEL_INPUTS];
    int16_t out[MODEL_OUTPUTS];
    model_state state;
    model_scratch scratch;
} held_model;

/* Room for a model in bytes: none. */
static inline uint32_t held_room(const held_model *held)
{
    (void)held;
    return 0;
}

static inline void held_write(held_model *held, uint32_t offset, const uint8_t *bytes, uint16_t n)
{
    (void)held;
    (void)offset;
    (void)bytes;
    (void)n;
}

static inline uint32_t held_load(held_model *held, uint32_t n_bytes, uint16_t most_values)
{
    (void)held;
    (void)n_bytes;
    (void)most_values;
    return 0;
}

/* NULL if there is no model. */
static inline const qg_model *held_descriptor(const held_model *held)
{
    (void)held;
    return &model_descriptor;
}

/* Gates read as zero before the first step. */
static inline void held_reset(held_model *held)
{
    memset(&held->scratch, 0, sizeof held->scratch);
    model_reset(&held->state);
}

/* [n_inputs], which a step reads. */
static inline int16_t *held_x(held_model *held)
{
    return held->x;
}

static inline void held_step(held_model *held)
{
    model_step(&held->state, &held->scratch, held->x);
}

/* Computes the outputs after a step, [n_outputs]. */
static inline const int16_t *held_output(held_model *held)
{
    model_output(&held->state, &held->scratch, held->out);
    return held->out;
}

static inline const int16_t *held_h(const held_model *held)
{
    return held->state.h;
}

static inline const uint16_t *held_residual(const held_model *held)
{
    return held->state.residual;
}

static inline qg_gates held_gates(held_model *held)
{
    const qg_gates gates = {held->scratch.u, held->scratch.r, held->scratch.n};
    return gates;
}

#endif
