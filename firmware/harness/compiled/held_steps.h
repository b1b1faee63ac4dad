/* A model that is compiled in and runs step by step. */
#ifndef HELD_STEPS_H
#define HELD_STEPS_H

#include "model.h"

#include <string.h>

#define HELD_STEPS 0

typedef struct held_model {
    int16_t x[MODEL_INPUTS];
    int16_t out[MODEL_OUTPUTS];
    model_state state;
    model_scratch scratch;
} held_model;

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
