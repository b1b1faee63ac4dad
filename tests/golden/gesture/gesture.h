/* gesture: a recurrent network in fixed point, exported by quantgru.
 *
 * 3 inputs, GRU of 9, GRU of 5, dense of 6, dense of 4.
 * Digest a2ac069ce3377ad99672196cc3c0fba02807c41ac82624753fa46105edbb19e8
 * In flash: 1,149 bytes of constants, codes of weights in 8 bits.
 *
 *     static gesture_state state;
 *     static gesture_scratch scratch;
 *
 *     gesture_reset(&state);                       before each sequence
 *     gesture_step(&state, &scratch, inputs);      for each time step
 *     gesture_output(&state, &scratch, outputs);   after the last step
 *
 * Nothing here can fail, except the self-test.
 */
#ifndef GESTURE_H
#define GESTURE_H

#include "quantgru.h"

#if QG_SPEC_MAJOR != 1 || QG_SPEC_MINOR < 1 || QG_EXPORT_FORMAT != 4
#error "gesture needs a quantgru library of SPEC 1.1, export format 4: copy that of the same export"
#endif

#define GESTURE_INPUTS 3
#define GESTURE_OUTPUTS 4
#define GESTURE_UNITS 14 /* of all GRU layers together */

/* Fraction bits of each input: a raw value x of input i means x / 2^fraction bits.
 * In m/s^2, deg/s, hPa */
#define GESTURE_INPUT_FRACTION_BITS \
    { \
        12, 9, 4 \
    }

/* An output raw value y means y / 2^GESTURE_OUTPUT_FRACTION_BITS. */
#define GESTURE_OUTPUT_FRACTION_BITS 11

#ifdef __cplusplus
extern "C" {
#endif

/* The model as data, for programs that work on any. C++ has no name for the memory in which an AVR keeps it. */
#if defined(__AVR__) && defined(__cplusplus)
const qg_model *gesture_model(void);
#define gesture_descriptor (*gesture_model())
#else
extern const qg_model gesture_descriptor;
#endif

/* What a sequence leaves behind, 56 bytes: copy it to save it, copy it back to go on. After a reset, h may be
 * written: a sequence can start from any state. */
typedef struct gesture_state {
    int16_t h[GESTURE_UNITS]; /* s16f15 */
    uint16_t residual[GESTURE_UNITS];
} gesture_state;

/* Work space, 106 bytes. Nothing in it need survive between calls: instances may share it. The gates of the
 * last step can be read from it. */
typedef struct gesture_scratch {
    uint16_t u[GESTURE_UNITS]; /* u16f15, 1 - z */
    uint16_t r[GESTURE_UNITS]; /* u16f15 */
    int16_t n[GESTURE_UNITS];  /* s16f15 */
    int16_t product[5];
    int16_t vectors[1][6];
} gesture_scratch;

/* Arrays are in RAM, and none may overlap another. There is no data but what is passed: tasks and interrupts can run at
 * the same time, each with a state and a scratch of its own. */

/* To the begin of a sequence. */
void gesture_reset(gesture_state *state);

/* One time step: reads the inputs, raw, and updates the state. What the scratch held does not matter. */
void gesture_step(gesture_state *state, gesture_scratch *scratch, const int16_t inputs[GESTURE_INPUTS]);

/* The outputs for the present state, raw. The state stays as it is: ask for them as often, or as rarely, as needed. */
void gesture_output(const gesture_state *state, gesture_scratch *scratch, int16_t outputs[GESTURE_OUTPUTS]);

/* Runs a few stored steps and compares their check value: 0, or QG_SELFTEST_FAILED. Leaves the state reset. */
int8_t gesture_selftest(gesture_state *state, gesture_scratch *scratch);

/* `scratch` as the library takes it. */
qg_scratch gesture_scratch_arrays(gesture_scratch *scratch);

/* The raw value of input `feature`, 0 ... GESTURE_INPUTS - 1, from sensor counts, saturated; for a model that was
 * calibrated in counts. From a float: see gesture_float.h. */
int16_t gesture_input_from_counts(uint16_t feature, int32_t counts);

/* GESTURE_INPUT_FRACTION_BITS in memory: read them with QG_READ_S8. */
extern const int8_t gesture_input_fraction_bits[GESTURE_INPUTS];

#ifdef __cplusplus
}
#endif

#endif
