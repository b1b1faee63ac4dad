/* gesture: a few steps of calibration data and their check value, exported by quantgru. Linked only if it is called. */
#include "gesture.h"

static const int16_t selftest_inputs[24] QG_CONSTANT = {
    -983, 5614, -4376, -3499, 1048, -3371, 2767, 1332, -4430, 298, -1799, 4396, -2591, -2249, 5814, 9169, 10235, 303,
    896, 7851, -597, -3999, 598, 2167,
};

int8_t gesture_selftest(gesture_state *state, gesture_scratch *scratch)
{
    static const qg_selftest_vector vector = {selftest_inputs, 0x1b824491u, 8};
    const qg_scratch arrays = gesture_scratch_arrays(scratch);
    int16_t inputs[GESTURE_INPUTS];
    int16_t outputs[GESTURE_OUTPUTS];
    return qg_selftest(&gesture_descriptor, &vector, state->h, state->residual, &arrays, inputs, outputs);
}
