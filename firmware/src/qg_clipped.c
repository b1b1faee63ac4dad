/* Inputs out of range. */
#include "quantgru_log.h"

uint16_t qg_clipped(const qg_model *model, const int16_t *x)
{
    if (model->embedding != NULL) {
        return *x < 0 || *x >= (int32_t)model->embedding->n_tokens;
    }
    uint16_t n = 0;
    const int16_t *const end = x + model->n_inputs;
    do {
        n = (uint16_t)(n + (*x == INT16_MIN || *x == INT16_MAX));
    } while (++x != end);
    return n;
}
