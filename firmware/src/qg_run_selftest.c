/* The self-test of a model that needs a whole sequence [R24]. */
#include "quantgru.h"

int8_t qg_run_selftest(const qg_model *model, const qg_selftest_vector *vector, const qg_work *work, int16_t *inputs,
                       int16_t *outputs)
{
    const uint16_t n_rows = model->last_step ? 1 : vector->n_steps;
    uint32_t check = 0;
    for (size_t i = 0; i < (size_t)vector->n_steps * model->n_inputs; ++i) {
        inputs[i] = QG_READ_S16(vector->inputs + i);
    }
    if (qg_run(model, inputs, vector->n_steps, NULL, work, outputs) != 0) {
        return QG_WRONG_STEPS;
    }
    for (uint16_t row = 0; row < n_rows; ++row) {
        check = qg_check_values(check, outputs, model->n_outputs);
        outputs += model->n_outputs;
    }
    return check == vector->check ? 0 : QG_SELFTEST_FAILED;
}
