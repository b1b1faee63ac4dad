/* How gesture is used: one sequence, from a sensor to a result. */
#include "gesture.h"
#include "gesture_float.h"

#define STEPS 8

static gesture_state state QG_STATE;
static gesture_scratch scratch QG_STATE;

/* Put your sensor here. */
static float read_sensor(uint16_t step, uint16_t feature)
{
    (void)step;
    (void)feature;
    return 0.0f;
}

/* The number of the largest output, the first of equal ones. */
static uint16_t largest(const int16_t outputs[GESTURE_OUTPUTS])
{
    uint16_t best = 0;
    for (uint16_t i = 1; i < GESTURE_OUTPUTS; ++i) {
        if (outputs[i] > outputs[best]) {
            best = i;
        }
    }
    return best;
}

int main(void)
{
    int16_t inputs[GESTURE_INPUTS];
    int16_t outputs[GESTURE_OUTPUTS];
    volatile uint16_t result;

    if (gesture_selftest(&state, &scratch) != 0) {
        return 1; /* this build computes other numbers than the simulator: do not use it */
    }
    gesture_reset(&state);
    for (uint16_t step = 0; step < STEPS; ++step) {
        for (uint16_t i = 0; i < GESTURE_INPUTS; ++i) {
            inputs[i] = gesture_input_from_float(i, read_sensor(step, i));
        }
        gesture_step(&state, &scratch, inputs);
    }
    gesture_output(&state, &scratch, outputs);
    result = largest(outputs);
    (void)result;
    return 0;
}
