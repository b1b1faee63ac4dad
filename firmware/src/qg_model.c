/* A whole model: its layers one after the other, and the check value of a step. */
#include "qg_fixed.h"
#include "quantgru.h"

#include <string.h>

void qg_reset(const qg_model *model, int16_t *h, uint16_t *residual)
{
    memset(h, 0, model->n_units * sizeof *h);
    memset(residual, 0, model->n_units * sizeof *residual);
}

QG_KERNEL void qg_step(const qg_model *model, const int16_t *x, int16_t *h, uint16_t *residual,
                       const qg_scratch *scratch)
{
    qg_gates gates = scratch->gates;
    for (uint8_t i = 0; i < model->n_grus; ++i) {
        const qg_gru *const gru = model->grus + i;
        gru->step(gru, x, h, residual, &gates, scratch->product);
        x = h; /* the next layer's input is this layer's new state */
        h += gru->n_units;
        residual += gru->n_units;
        gates.u += gru->n_units;
        gates.r += gru->n_units;
        gates.n += gru->n_units;
    }
}

void qg_output(const qg_model *model, const int16_t *h, const qg_scratch *scratch, int16_t *out)
{
    const int16_t *x = h + (model->n_units - model->grus[model->n_grus - 1].n_units);
    if (model->n_dense == 0) {
        memcpy(out, x, model->n_outputs * sizeof *out);
        return;
    }
    const uint8_t last = (uint8_t)(model->n_dense - 1);
    for (uint8_t i = 0; i < last; ++i) {
        int16_t *const inner = scratch->dense[i & 1];
        qg_dense_layer(model->head + i, x, inner);
        x = inner;
    }
    qg_dense_layer(model->head + last, x, out);
}

int16_t qg_input_from_counts(int32_t counts, int8_t fraction_bits)
{
    if (fraction_bits < 0) { /* counts / 2^shift, ties up; written so that adding one half cannot overflow */
        const uint8_t shift = (uint8_t)-fraction_bits;
        return qg_saturate16((counts >> shift) + ((counts >> (shift - 1)) & 1));
    }
    /* 2^16 takes every count but 0 out of range already, and a saturated count times 2^16 is an int32_t. */
    const uint8_t shift = (uint8_t)(fraction_bits < 16 ? fraction_bits : 16);
    return qg_saturate16((int32_t)((uint32_t)(int32_t)qg_saturate16(counts) << shift));
}
