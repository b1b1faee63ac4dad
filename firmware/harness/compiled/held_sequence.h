/* A model that is compiled in and needs whole sequences: one is held, with what comes out of it. */
#ifndef HELD_SEQUENCE_H
#define HELD_SEQUENCE_H

#include "model.h"

#include <string.h>

#define HELD_STEPS MODEL_STEPS /* of the longest sequence; 0: the model runs step by step */

typedef struct held_model {
    int16_t inputs[MODEL_STEPS][MODEL_INPUTS];
    int16_t outputs[MODEL_OUTPUT_STEPS][MODEL_OUTPUTS];
    uint16_t n_output_steps; /* of the last run; 0 before the first */
    model_work work;
} held_model;

/* Inputs read as zero before they are written. */
static inline void held_reset(held_model *held)
{
    memset(held->inputs, 0, sizeof held->inputs);
    held->n_output_steps = 0;
}

/* [HELD_STEPS][n_inputs], which a run reads. */
static inline int16_t *held_inputs(held_model *held)
{
    return held->inputs[0];
}

/* Runs the first n_steps of the inputs, 1 ... HELD_STEPS. */
static inline void held_run(held_model *held, uint16_t n_steps)
{
    (void)model_run(&held->work, held->inputs[0], n_steps, NULL, held->outputs[0]);
    held->n_output_steps = model_descriptor.last_step ? 1 : n_steps;
}

/* Of the last run, [held_output_steps][n_outputs]. */
static inline const int16_t *held_outputs(const held_model *held)
{
    return held->outputs[0];
}

static inline uint16_t held_output_steps(const held_model *held)
{
    return held->n_output_steps;
}

#endif
