/* phrase: a recurrent network in fixed point, exported by quantgru.
 *
 * 1 input, embedding of 11 tokens in 5, bidirectional GRU of 4 (concat), dense of 3, reversal, GRU of 5,
 * bidirectional GRU of 9 (mul of the final states), dense of 6, dense of 3.
 * Digest 70012592da40adce4c871b43776be0d78ce39551a1b074d096c468e6929c1c73
 * In flash: 2,344 bytes of constants, codes of weights in 8 bits.
 *
 *     static phrase_work work;
 *
 *     error = phrase_run(&work, inputs, n_steps, NULL, outputs);
 *
 * It needs whole sequences: inputs is [n_steps][PHRASE_INPUTS], all of it in RAM; outputs is [PHRASE_OUTPUTS], of
 * the last step. A run can fail only for n_steps of 0, or above PHRASE_STEPS.
 *
 * The input is the number of a token, 0 ... 10; others count as the nearest of these.
 * A step at which the token is 0 is padding: leave it out, it is no step.
 * A sequence starts from an initial state that belongs to the model, not from zeros.
 */
#ifndef PHRASE_H
#define PHRASE_H

#include "quantgru.h"

#if QG_SPEC_MAJOR != 1 || QG_SPEC_MINOR < 1 || QG_EXPORT_FORMAT != 4
#error "phrase needs a quantgru library of SPEC 1.1, export format 4: copy that of the same export"
#endif

#define PHRASE_INPUTS 1
#define PHRASE_OUTPUTS 3
#define PHRASE_UNITS 31 /* of all GRU layers together */

/* The longest sequence; each step takes 16 bytes of RAM. Define it before this header, or when compiling, to
 * change it. */
#ifndef PHRASE_STEPS
#define PHRASE_STEPS 12
#endif
#if PHRASE_STEPS < 1 || PHRASE_STEPS > 65535
#error "PHRASE_STEPS: expected 1 ... 65535"
#endif
#define PHRASE_OUTPUT_STEPS 1 /* the most that a run puts out */

/* Fraction bits of each input: a raw value x of input i means x / 2^fraction bits. */
#define PHRASE_INPUT_FRACTION_BITS \
    { \
        0 \
    }

/* An output raw value y means y / 2^PHRASE_OUTPUT_FRACTION_BITS. */
#define PHRASE_OUTPUT_FRACTION_BITS 12

#ifdef __cplusplus
extern "C" {
#endif

/* The model as data, for programs that work on any. C++ has no name for the memory in which an AVR keeps it. */
#if defined(__AVR__) && defined(__cplusplus)
const qg_model *phrase_model(void);
#define phrase_descriptor (*phrase_model())
#else
extern const qg_model phrase_descriptor;
#endif

/* Work space, 140 bytes and 16 a step: 332 in all for 12 steps.
 * Nothing in it need survive between runs. */
typedef struct phrase_work {
    uint16_t u[9]; /* u16f15, 1 - z; gates and state are those of the layer that ran last */
    uint16_t r[9]; /* u16f15 */
    int16_t n[9];
    int16_t h[18];
    uint16_t residual[9];
    uint16_t saturated; /* candidates of the last run at a limit of their format, up to 65535: calibration chose it */
    int16_t product[9];
    int16_t vectors[1][6];
    int16_t rows[PHRASE_STEPS][8];
} phrase_work;

/* `work` as the library takes it: with the PHRASE_STEPS of the file that calls. */
static inline qg_work phrase_work_arrays(phrase_work *work)
{
    const qg_work arrays = {
        {
            {work->u, work->r, work->n},
            work->product,
            {work->vectors[0], NULL},
        },
        work->h,
        work->residual,
        &work->saturated,
        work->rows[0],
        8,
        PHRASE_STEPS,
    };
    return arrays;
}

/* Computes all outputs of a sequence: 0, or QG_WRONG_STEPS. Arrays may not overlap. There is no data but what is
 * passed: tasks can run at the same time, each with a work space of its own.
 *
 * `initial_states` [PHRASE_UNITS]: h of all GRU layers before their first step, of a bidirectional layer forward, then
 * backward: 8 of s16f15, then 5 of s16f14, then 18 of s16f15. NULL: those that belong to the model, which are zeros
 * unless it says more. */
static inline int8_t phrase_run(phrase_work *work, const int16_t *inputs, uint16_t n_steps,
                               const int16_t *initial_states, int16_t *outputs)
{
    const qg_work arrays = phrase_work_arrays(work);
    return qg_run(&phrase_descriptor, inputs, n_steps, initial_states, &arrays, outputs);
}

int8_t phrase_selftest_arrays(const qg_work *arrays);

/* Runs a few stored steps and compares their check value: 0, QG_SELFTEST_FAILED, or QG_WRONG_STEPS if PHRASE_STEPS is
 * below 8. Takes 22 bytes of stack. */
static inline int8_t phrase_selftest(phrase_work *work)
{
    const qg_work arrays = phrase_work_arrays(work);
    return phrase_selftest_arrays(&arrays);
}

/* The raw value of input `feature`, 0 ... PHRASE_INPUTS - 1, from sensor counts, saturated; for a model that was
 * calibrated in counts. From a float: see phrase_float.h. */
int16_t phrase_input_from_counts(uint16_t feature, int32_t counts);

/* PHRASE_INPUT_FRACTION_BITS in memory: read them with QG_READ_S8. */
extern const int8_t phrase_input_fraction_bits[PHRASE_INPUTS];

#ifdef __cplusplus
}
#endif

#endif
