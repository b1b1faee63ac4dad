/* One time step of a GRU layer, with either place of the reset gate [R9 ... R12]. */
#include "qg_fixed.h"
#include "quantgru.h"

typedef enum { UPDATE, RESET, CANDIDATE } gate;

/* Units whose sums are in work at a time: a compromise between stack and calls. */
#define BLOCK_UNITS 32

static inline uint16_t block_size(uint16_t n_units, uint16_t first_unit)
{
    const uint16_t left = (uint16_t)(n_units - first_unit);
    return left < BLOCK_UNITS ? left : BLOCK_UNITS;
}

static inline void read_s32(const int32_t *constants, uint16_t n, int32_t *values)
{
    for (uint16_t i = 0; i < n; ++i) {
        values[i] = QG_READ_S32(constants + i);
    }
}

/* Pre-activations of a block of units of one gate: bias + W x + U operand, s32f14 [R9]. The model proves that no
 * partial sum reaches 2^31. */
static void gate_sums(const qg_gru *gru, gate which, uint16_t first_unit, uint16_t n, const int16_t *x,
                      const int16_t *operand, int32_t sums[BLOCK_UNITS])
{
    const uint16_t first_row = (uint16_t)((uint16_t)which * gru->n_units + first_unit);
    read_s32(gru->bias + first_row, n, sums);
    qg_affine_add(&gru->input, first_row, n, x, sums);
    qg_affine_add(&gru->recurrent, first_row, n, operand, sums);
}

/* u and r of all units [R10]. */
static void update_and_reset_gates(const qg_gru *gru, const int16_t *x, const int16_t *h, const qg_gates *gates)
{
    int32_t sums[BLOCK_UNITS];
    uint16_t n;
    for (uint16_t unit = 0; unit < gru->n_units; unit = (uint16_t)(unit + n)) {
        n = block_size(gru->n_units, unit);
        gate_sums(gru, UPDATE, unit, n, x, h, sums);
        for (uint16_t i = 0; i < n; ++i) {
            gates->u[unit + i] = (uint16_t)(0x8000u - qg_sigmoid(sums[i]));
        }
        gate_sums(gru, RESET, unit, n, x, h, sums);
        for (uint16_t i = 0; i < n; ++i) {
            gates->r[unit + i] = qg_sigmoid(sums[i]);
        }
    }
}

/* h' = h + u (n - h), its remainder kept in the residual [R12]. */
static void update_state(const qg_gru *gru, int16_t *h, uint16_t *residual, const qg_gates *gates)
{
    for (uint16_t i = 0; i < gru->n_units; ++i) {
        /* |n - h| <= 2^16 - 1, u <= 2^15, residual < 2^15: |acc| < 2^31. h' lies between h and n. */
        const int32_t acc = (int32_t)gates->u[i] * ((int32_t)gates->n[i] - h[i]) + residual[i];
        h[i] = (int16_t)(h[i] + (acc >> 15));
        residual[i] = (uint16_t)(acc & 0x7fff);
    }
}

QG_KERNEL void qg_gru_reset_after(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                  const qg_gates *gates, int16_t *product)
{
    const uint16_t n_units = gru->n_units;
    int32_t sums[BLOCK_UNITS];
    uint16_t n;
    (void)product;
    update_and_reset_gates(gru, x, h, gates);
    for (uint16_t unit = 0; unit < n_units; unit = (uint16_t)(unit + n)) {
        const uint16_t row = (uint16_t)(CANDIDATE * n_units + unit);
        n = block_size(n_units, unit);
        read_s32(gru->recurrent_bias + unit, n, sums);
        qg_affine_add(&gru->recurrent, row, n, h, sums);
        for (uint16_t i = 0; i < n; ++i) { /* [R11a] */
            sums[i] = qg_reset_product(sums[i], gates->r[unit + i]) + QG_READ_S32(gru->bias + row + i);
        }
        qg_affine_add(&gru->input, row, n, x, sums);
        for (uint16_t i = 0; i < n; ++i) {
            gates->n[unit + i] = qg_tanh(sums[i]);
        }
    }
    update_state(gru, h, residual, gates);
}

QG_KERNEL void qg_gru_reset_before(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                   const qg_gates *gates, int16_t *product)
{
    const uint16_t n_units = gru->n_units;
    int32_t sums[BLOCK_UNITS];
    uint16_t n;
    update_and_reset_gates(gru, x, h, gates);
    for (uint16_t i = 0; i < n_units; ++i) { /* [R11b] |h r| <= 2^30 */
        product[i] = (int16_t)qg_round_shift((int32_t)h[i] * (int32_t)gates->r[i], 15);
    }
    for (uint16_t unit = 0; unit < n_units; unit = (uint16_t)(unit + n)) {
        n = block_size(n_units, unit);
        gate_sums(gru, CANDIDATE, unit, n, x, product, sums);
        for (uint16_t i = 0; i < n; ++i) {
            gates->n[unit + i] = qg_tanh(sums[i]);
        }
    }
    update_state(gru, h, residual, gates);
}
