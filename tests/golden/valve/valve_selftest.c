/* valve: a few steps of calibration data and their check value, exported by quantgru. Linked only if it is called. */
#include "valve.h"

static const int16_t selftest_inputs[16] QG_CONSTANT = {
    -1335, -12418, -15843, -19501, -2857, -10835, -14003, 7867, 1370, 8165, -971, -2019, 25, -2186, 12784, -19681,
};

int8_t valve_selftest(valve_state *state, valve_scratch *scratch)
{
    static const qg_selftest_vector vector = {selftest_inputs, 0x57fad503u, 8};
    const qg_scratch arrays = valve_scratch_arrays(scratch);
    int16_t inputs[VALVE_INPUTS];
    int16_t outputs[VALVE_OUTPUTS];
    return qg_selftest(&valve_descriptor, &vector, state->h, state->residual, &arrays, inputs, outputs);
}
