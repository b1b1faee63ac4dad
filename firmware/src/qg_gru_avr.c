/* One time step of a GRU layer [R9 ... R13, R19], for AVRs. */
#include "qg_gru_step_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

/* Inline, for a call takes as much flash, and 22 cycles more. */
static inline __attribute__((always_inline)) int32_t inline_bias(const qg_gru *gru, const void *biases, size_t i)
{
    return qg_exact_bias(gru, biases, i);
}

QG_KERNEL void qg_gru_reset_after(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                  const qg_gates *gates, int16_t *product)
{
    (void)product;
    reset_after(gru, x, h, residual, gates, inline_bias);
}

QG_KERNEL void qg_gru_reset_before(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                   const qg_gates *gates, int16_t *product)
{
    reset_before(gru, x, h, residual, gates, product, inline_bias);
}

#endif
