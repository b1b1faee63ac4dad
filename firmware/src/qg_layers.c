/* A step of a model in which dense layers or an embedding stand before or between GRU layers. */
#include "quantgru.h"

QG_KERNEL void qg_step_layers(const qg_model *model, const int16_t *x, int16_t *h, uint16_t *residual,
                              const qg_scratch *scratch)
{
    const qg_kind *const head = model->kinds + model->n_layers - model->n_head;
    const qg_gru *gru = model->grus;
    const qg_dense *dense = model->dense;
    qg_gates gates = scratch->gates;
    for (const qg_kind *kind = model->kinds; kind != head; ++kind) {
        int16_t *const vector = scratch->vectors[x == scratch->vectors[0]]; /* the one that x is not in */
        switch (*kind) {
        case QG_GRU:
            gru->step(gru, x, h, residual, &gates, scratch->product);
            x = h;
            h += gru->n_units;
            residual += gru->n_units;
            gates.u += gru->n_units;
            gates.r += gru->n_units;
            gates.n += gru->n_units;
            ++gru;
            break;
        case QG_DENSE:
            qg_dense_layer(dense, x, vector);
            x = vector;
            ++dense;
            break;
        case QG_EMBEDDING:
            qg_look_up(model->embedding, x, vector);
            x = vector;
            break;
        default: /* QG_REVERSE: the caller gives the steps in that order */
            break;
        }
    }
}
