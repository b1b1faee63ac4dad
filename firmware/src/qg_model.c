/* A whole model: its layers one after the other, and the conversion of sensor counts. */
#include "qg_fixed.h"
#include "quantgru.h"

#include <string.h>

void qg_reset(const qg_model *model, int16_t *h, uint16_t *residual)
{
    const qg_gru *gru = model->grus;
    const qg_gru *const end = gru + model->n_grus;
    do {
        qg_gru_reset(gru, h, residual);
        h += gru->n_units;
        residual += gru->n_units;
    } while (++gru != end);
}

QG_KERNEL void qg_step(const qg_model *model, const int16_t *x, int16_t *h, uint16_t *residual,
                       const qg_scratch *scratch)
{
    const qg_gru *gru = model->grus;
    const qg_gru *const end = gru + model->n_grus;
    qg_gates gates = scratch->gates;
    do {
        const uint16_t n_units = gru->n_units;
        gru->step(gru, x, h, residual, &gates, scratch->product);
        x = h; /* the next layer's input is this layer's new state */
        h += n_units;
        residual += n_units;
        gates.u += n_units;
        gates.r += n_units;
        gates.n += n_units;
    } while (++gru != end);
}

void qg_output(const qg_model *model, const int16_t *h, const qg_scratch *scratch, int16_t *out)
{
    const int16_t *const x = h + model->n_units - model->grus[model->n_grus - 1].n_units;
    if (model->n_head == 0) {
        memcpy(out, x, model->n_outputs * sizeof *out);
        return;
    }
    qg_head(model, x, scratch->vectors, out);
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
