/* The model under test, compiled in. Another folder has the same names for one that comes over the line: the build
 * takes one of the two. */
#ifndef HELD_MODEL_H
#define HELD_MODEL_H

#include "model.h"

#ifdef MODEL_STEPS
#include "held_sequence.h"
#else
#include "held_steps.h"
#endif

#define HELD_INPUTS MODEL_INPUTS
#define HELD_OUTPUTS MODEL_OUTPUTS

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

#endif
