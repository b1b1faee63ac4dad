/* How valve is used: one sequence, from a sensor to a result. */
#include "valve.h"
#include "valve_float.h"

#define STEPS 8

static valve_state state QG_STATE;
static valve_scratch scratch QG_STATE;

/* Put your sensor here. */
static float read_sensor(uint16_t step, uint16_t feature)
{
    (void)step;
    (void)feature;
    return 0.0f;
}

/* The number of the largest output, the first of equal ones. */
static uint16_t largest(const int16_t outputs[VALVE_OUTPUTS])
{
    uint16_t best = 0;
    for (uint16_t i = 1; i < VALVE_OUTPUTS; ++i) {
        if (outputs[i] > outputs[best]) {
            best = i;
        }
    }
    return best;
}

int main(void)
{
    int16_t inputs[VALVE_INPUTS];
    int16_t outputs[VALVE_OUTPUTS];
    volatile uint16_t result;

    if (valve_selftest(&state, &scratch) != 0) {
        return 1; /* this build computes other numbers than the simulator: do not use it */
    }
    valve_reset(&state);
    for (uint16_t step = 0; step < STEPS; ++step) {
        for (uint16_t i = 0; i < VALVE_INPUTS; ++i) {
            inputs[i] = valve_input_from_float(i, read_sensor(step, i));
        }
        valve_step(&state, &scratch, inputs);
    }
    valve_output(&state, &scratch, outputs);
    result = largest(outputs);
    (void)result;
    return 0;
}
