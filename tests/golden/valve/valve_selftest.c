/* valve: a few steps of calibration data and their check value, exported by quantgru. Linked only if it is called. */
#include "valve.h"

#define STEPS 8
#define CHECK 0x57fad503u

static const int16_t selftest_inputs[16] QG_CONSTANT = {
    -1335, -12418, -15843, -19501, -2857, -10835, -14003, 7867, 1370, 8165, -971, -2019, 25, -2186, 12784, -19681,
};

int8_t valve_selftest(valve_state *state, valve_scratch *scratch)
{
    int16_t inputs[VALVE_INPUTS];
    int16_t outputs[VALVE_OUTPUTS];
    uint32_t check = 0;
    valve_reset(state);
    for (size_t step = 0; step < STEPS; ++step) {
        for (size_t i = 0; i < VALVE_INPUTS; ++i) {
            inputs[i] = QG_READ_S16(selftest_inputs + step * VALVE_INPUTS + i);
        }
        valve_step(state, scratch, inputs);
        valve_output(state, scratch, outputs);
        check = qg_step_check(&valve_descriptor, state->h, state->residual, outputs, check);
    }
    valve_reset(state);
    return check == CHECK ? 0 : QG_SELFTEST_FAILED;
}
