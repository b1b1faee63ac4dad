/* The least program with a model that runs step by step. It is linked to be measured, never run. */
#include "model.h"

static model_state state;
static model_scratch scratch;
static int16_t inputs[MODEL_INPUTS];
static int16_t outputs[MODEL_OUTPUTS];

int main(void)
{
    model_reset(&state);
    for (;;) {
        model_step(&state, &scratch, inputs);
        model_output(&state, &scratch, outputs);
    }
}
