/* One time step of a GRU layer, with either place of the reset gate [R9 ... R13, R19], for AVRs: unit by unit. Each
 * file that includes this has the functions for one form of biases. */
#ifndef QG_GRU_STEP_AVR_H
#define QG_GRU_STEP_AVR_H

#include "qg_avr.h"
#include "qg_bias.h"
#include "qg_fixed.h"

#if QG_KERNELS == QG_KERNELS_AVR

/* v >> 15. The compiler shifts by whole bytes, or bit by bit. */
static inline int32_t shift15(int32_t v)
{
    return (int32_t)(int16_t)(v >> 16) * 2 + ((uint16_t)v >> 15);
}

/* Pre-activation of a gate: bias + W x + U operand, in the format of its rows [R9]. The model proves that no partial
 * sum reaches 2^31. */
static int32_t gate_sum(const qg_gru *gru, qg_row row, const int16_t *x, const int16_t *operand, qg_bias_at bias_at)
{
    int32_t sum = bias_at(gru, gru->bias, row.number);
    sum += qg_affine_row(&gru->input, row, x);
    return sum + qg_affine_row(&gru->recurrent, row, operand);
}

/* Pre-activation of n when the reset gate acts after the product [R11a]. */
static int32_t reset_after_sum(const qg_gru *gru, qg_row row, const int16_t *x, const int16_t *h, uint16_t r,
                               qg_bias_at bias_at)
{
    const uint16_t unit = row.number - 2 * gru->n_units;
    int32_t sum = bias_at(gru, gru->recurrent_bias, unit) + qg_affine_row(&gru->recurrent, row, h);
    sum = qg_reset_product_avr(sum, r) + bias_at(gru, gru->bias, row.number);
    return sum + qg_affine_row(&gru->input, row, x);
}

/* n, in the state's format [R19]. */
static int16_t candidate(const qg_gru *gru, int32_t sum)
{
    const uint8_t shift = gru->state_shift;
    const int16_t t = gru->candidate(sum);
    return shift == 0 ? t : (int16_t)qg_round_shift(t, shift);
}

/* h' = h + u (n - h), its remainder kept in the residual [R12]. */
static void update_state(const qg_gru *gru, int16_t *h, uint16_t *residual, const qg_gates *gates)
{
    for (uint16_t i = 0; i < gru->n_units; ++i) {
        /* |n - h| <= 2^16 - 1, u <= 2^15, residual < 2^15: |acc| < 2^31. h' lies between h and n. */
        const int32_t acc = (int32_t)gates->u[i] * ((int32_t)gates->n[i] - h[i]) + residual[i];
        h[i] = (int16_t)(uint16_t)((uint16_t)h[i] + (uint16_t)shift15(acc)); /* an int has 16 bits */
        residual[i] = (uint16_t)acc & 0x7fff;
    }
}

static inline void reset_after(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                               const qg_gates *gates, qg_bias_at bias_at)
{
    for (uint16_t i = 0; i < gru->n_units; ++i) {
        qg_row row = qg_row_of_section(i, gru->n_units);
        gates->u[i] = gru->gate(-gate_sum(gru, row, x, h, bias_at)); /* u = 2^15 - gate(a) = gate(-a); |a| < 2^31 */
        row.number += gru->n_units;
        gates->r[i] = gru->gate(gate_sum(gru, row, x, h, bias_at));
        row.number += gru->n_units;
        gates->n[i] = candidate(gru, reset_after_sum(gru, row, x, h, gates->r[i], bias_at));
    }
    update_state(gru, h, residual, gates);
}

static inline void reset_before(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                const qg_gates *gates, int16_t *product, qg_bias_at bias_at)
{
    const uint16_t n_units = gru->n_units;
    for (uint16_t i = 0; i < n_units; ++i) {
        qg_row row = qg_row_of_section(i, n_units);
        gates->u[i] = gru->gate(-gate_sum(gru, row, x, h, bias_at));
        row.number += n_units;
        gates->r[i] = gru->gate(gate_sum(gru, row, x, h, bias_at));
        product[i] = (int16_t)shift15((int32_t)h[i] * gates->r[i] + 0x4000); /* [R11b] |h r| <= 2^30 */
    }
    for (uint16_t i = 0; i < n_units; ++i) {
        qg_row row = qg_row_of_section(i, n_units);
        row.number += 2 * n_units;
        gates->n[i] = candidate(gru, gate_sum(gru, row, x, product, bias_at));
    }
    update_state(gru, h, residual, gates);
}

#endif

#endif
