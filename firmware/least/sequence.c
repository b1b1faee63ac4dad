/* The least program with a model that needs whole sequences. It is linked to be measured, never run. The sequence is
 * one step: how many inputs a program keeps in memory is its own business. */
#include "model.h"

static model_work work;
static int16_t inputs[MODEL_INPUTS];
static int16_t outputs[MODEL_OUTPUTS];

int main(void)
{
    return model_run(&work, inputs, 1, NULL, outputs);
}
