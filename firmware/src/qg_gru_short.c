/* One time step of a GRU layer whose biases are short [R9 ... R13, R19]. */
#include "qg_gru_step.h"

#if QG_KERNELS != QG_KERNELS_AVR

QG_KERNEL void qg_gru_reset_after_short(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                        const qg_gates *gates, int16_t *product)
{
    (void)product;
    reset_after(gru, x, h, residual, gates, qg_short_bias);
}

QG_KERNEL void qg_gru_reset_before_short(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                         const qg_gates *gates, int16_t *product)
{
    reset_before(gru, x, h, residual, gates, product, qg_short_bias);
}

#endif
