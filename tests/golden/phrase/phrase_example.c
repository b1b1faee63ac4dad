/* How phrase is used: one sequence, from a sensor to a result. */
#include "phrase.h"
#include "phrase_float.h"

#define STEPS 8

static phrase_work work QG_STATE;
static int16_t inputs[STEPS][PHRASE_INPUTS];
static int16_t outputs[1][PHRASE_OUTPUTS];

/* Put your sensor here. */
static float read_sensor(uint16_t step, uint16_t feature)
{
    (void)step;
    (void)feature;
    return 0.0f;
}

int main(void)
{
    volatile int16_t result;

    if (phrase_selftest(&work) != 0) {
        return 1; /* this build computes other numbers than the simulator: do not use it */
    }
    for (uint16_t step = 0; step < STEPS; ++step) {
        for (uint16_t i = 0; i < PHRASE_INPUTS; ++i) {
            inputs[step][i] = phrase_input_from_float(i, read_sensor(step, i));
        }
    }
    if (phrase_run(&work, inputs[0], STEPS, NULL, outputs[0]) != 0) {
        return 1; /* the sequence is longer than PHRASE_STEPS */
    }
    result = outputs[0][0];
    (void)result;
    return 0;
}
