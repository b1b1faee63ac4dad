/* How often the format of a state was too small [R25]. A model that runs step by step links it only if it is called. */
#include "quantgru.h"

uint16_t qg_gru_saturated(const qg_gru *gru, const int16_t *n)
{
    uint16_t saturated = 0;
    /* The other candidates have limits of their own. */
    if (gru->candidate_kind == QG_CANDIDATE_RELU || gru->candidate_kind == QG_CANDIDATE_LINEAR) {
        for (uint16_t i = 0; i < gru->n_units; ++i) {
            saturated = (uint16_t)(saturated + (n[i] == INT16_MAX || n[i] == INT16_MIN));
        }
    }
    return saturated;
}

uint16_t qg_saturated(const qg_model *model, const int16_t *n)
{
    const qg_gru *const end = model->grus + model->n_grus;
    uint16_t saturated = 0;
    for (const qg_gru *gru = model->grus; gru != end; ++gru) {
        saturated = (uint16_t)(saturated + qg_gru_saturated(gru, n));
        n += gru->n_units;
    }
    return saturated;
}
