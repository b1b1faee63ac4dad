/* phrase: a few steps of calibration data and their check value, exported by quantgru. Linked only if it is called. */
#include "phrase.h"

static const int16_t selftest_inputs[8] QG_CONSTANT = {
    7, 1, 3, 10, 9, 7, 5, 4,
};

int8_t phrase_selftest_arrays(const qg_work *arrays)
{
    static const qg_selftest_vector vector = {selftest_inputs, 0x9dc38ed6u, 8};
    int16_t inputs[8 * PHRASE_INPUTS];
    int16_t outputs[PHRASE_OUTPUTS];
    return qg_run_selftest(&phrase_descriptor, &vector, arrays, inputs, outputs);
}
