/* The self-test of a model that runs step by step [R16]. */
#include "quantgru.h"

int8_t qg_selftest(const qg_model *model, const qg_selftest_vector *vector, int16_t *h, uint16_t *residual,
                   const qg_scratch *scratch, int16_t *x, int16_t *out)
{
    uint32_t check = 0;
    qg_reset(model, h, residual);
    for (uint16_t step = 0; step < vector->n_steps; ++step) {
        for (uint16_t i = 0; i < model->n_inputs; ++i) {
            x[i] = QG_READ_S16(vector->inputs + (size_t)step * model->n_inputs + i);
        }
        model->step(model, x, h, residual, scratch);
        qg_output(model, h, scratch, out);
        check = qg_step_check(model, h, residual, out, check);
    }
    qg_reset(model, h, residual);
    return check == vector->check ? 0 : QG_SELFTEST_FAILED;
}
