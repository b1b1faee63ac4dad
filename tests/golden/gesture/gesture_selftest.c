/* gesture: a few steps of calibration data and their check value, exported by quantgru. Linked only if it is called. */
#include "gesture.h"

#define STEPS 8
#define CHECK 0x1b824491u

static const int16_t selftest_inputs[24] QG_CONSTANT = {
    -983, 5614, -4376, -3499, 1048, -3371, 2767, 1332, -4430, 298, -1799, 4396, -2591, -2249, 5814, 9169, 10235, 303,
    896, 7851, -597, -3999, 598, 2167,
};

int8_t gesture_selftest(gesture_state *state, gesture_scratch *scratch)
{
    int16_t inputs[GESTURE_INPUTS];
    int16_t outputs[GESTURE_OUTPUTS];
    uint32_t check = 0;
    gesture_reset(state);
    for (size_t step = 0; step < STEPS; ++step) {
        for (size_t i = 0; i < GESTURE_INPUTS; ++i) {
            inputs[i] = QG_READ_S16(selftest_inputs + step * GESTURE_INPUTS + i);
        }
        gesture_step(state, scratch, inputs);
        gesture_output(state, scratch, outputs);
        check = qg_step_check(&gesture_descriptor, state->h, state->residual, outputs, check);
    }
    gesture_reset(state);
    return check == CHECK ? 0 : QG_SELFTEST_FAILED;
}
