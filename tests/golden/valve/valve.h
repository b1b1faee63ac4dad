/* valve: a recurrent network in fixed point, exported by quantgru.
 *
 * 2 inputs, reversal, dense of 5, dense of 3, GRU of 9, dense of 4, GRU of 3, GRU of 2, dense of 4, dense of 3,
 * dense of 1.
 * Digest 841279d2fc96af444b99d683eb88099a1b7596ad9c014e4d15b12bb27de94ed3
 * In flash: 1,161 bytes of constants, codes of weights in 8 bits.
 *
 *     static valve_state state;
 *     static valve_scratch scratch;
 *
 *     valve_reset(&state);                       before each sequence
 *     valve_step(&state, &scratch, inputs);      for each time step
 *     valve_output(&state, &scratch, outputs);   after a step whose output is wanted
 *
 * Nothing here can fail, except the self-test.
 *
 * Steps are given from the last to the first: the model reads sequences from their end.
 * A step at which each input, in real units, is -1 is padding: leave it out, it is no step.
 * A sequence starts from an initial state that belongs to the model, not from zeros.
 */
#ifndef VALVE_H
#define VALVE_H

#include "quantgru.h"

#if QG_SPEC_MAJOR != 1 || QG_SPEC_MINOR < 1 || QG_EXPORT_FORMAT != 4
#error "valve needs a quantgru library of SPEC 1.1, export format 4: copy that of the same export"
#endif

#define VALVE_INPUTS 2
#define VALVE_OUTPUTS 1
#define VALVE_UNITS 14 /* of all GRU layers together */

/* Fraction bits of each input: a raw value x of input i means x / 2^fraction bits.
 * In l/min, mbar */
#define VALVE_INPUT_FRACTION_BITS \
    { \
        13, 8 \
    }

/* An output raw value y means y / 2^VALVE_OUTPUT_FRACTION_BITS.
 * In % */
#define VALVE_OUTPUT_FRACTION_BITS 13

#ifdef __cplusplus
extern "C" {
#endif

/* The model as data, for programs that work on any. C++ has no name for the memory in which an AVR keeps it. */
#if defined(__AVR__) && defined(__cplusplus)
const qg_model *valve_model(void);
#define valve_descriptor (*valve_model())
#else
extern const qg_model valve_descriptor;
#endif

/* What a sequence leaves behind, 56 bytes: copy it to save it, copy it back to go on. After a reset, h may be
 * written: a sequence can start from any state. */
typedef struct valve_state {
    int16_t h[VALVE_UNITS]; /* 9 of s16f12, then 3 of s16f15, then 2 of s16f13 */
    uint16_t residual[VALVE_UNITS];
} valve_state;

/* Work space, 110 bytes. Nothing in it need survive between calls: instances may share it. The gates of the
 * last step can be read from it. */
typedef struct valve_scratch {
    uint16_t u[VALVE_UNITS]; /* u16f15, 1 - z */
    uint16_t r[VALVE_UNITS]; /* u16f15 */
    int16_t n[VALVE_UNITS];  /* 9 of s16f12, then 3 of s16f15, then 2 of s16f13 */
    int16_t product[3];
    int16_t vectors[2][5];
} valve_scratch;

/* Arrays are in RAM, and none may overlap another. There is no data but what is passed: tasks and interrupts can run at
 * the same time, each with a state and a scratch of its own. */

/* To the begin of a sequence. */
void valve_reset(valve_state *state);

/* One time step: reads the inputs, raw, and updates the state. What the scratch held does not matter. */
void valve_step(valve_state *state, valve_scratch *scratch, const int16_t inputs[VALVE_INPUTS]);

/* The outputs for the present state, raw. The state stays as it is: ask for them as often, or as rarely, as needed. */
void valve_output(const valve_state *state, valve_scratch *scratch, int16_t outputs[VALVE_OUTPUTS]);

/* How many candidates of the last step with this scratch stood at a limit of their format, which calibration chose.
 * Where it is often above 0, the model sees larger inputs than calibration did. */
uint16_t valve_saturated(const valve_scratch *scratch);

/* Runs a few stored steps and compares their check value: 0, or QG_SELFTEST_FAILED. Leaves the state reset. */
int8_t valve_selftest(valve_state *state, valve_scratch *scratch);

/* `scratch` as the library takes it. */
qg_scratch valve_scratch_arrays(valve_scratch *scratch);

/* The raw value of input `feature`, 0 ... VALVE_INPUTS - 1, from sensor counts, saturated; for a model that was
 * calibrated in counts. From a float: see valve_float.h. */
int16_t valve_input_from_counts(uint16_t feature, int32_t counts);

/* VALVE_INPUT_FRACTION_BITS in memory: read them with QG_READ_S8. */
extern const int8_t valve_input_fraction_bits[VALVE_INPUTS];

#ifdef __cplusplus
}
#endif

#endif
