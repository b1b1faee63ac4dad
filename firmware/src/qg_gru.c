/* One time step of a GRU layer, with either place of the reset gate [R9 ... R13, R19]. */
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

/* Loops over units test at their end: there is at least one, and the compiler need not provide for none. */

static inline void read_s32(const int32_t *constants, uint16_t n, int32_t *values)
{
    size_t i = 0;
    do {
        values[i] = QG_READ_S32(constants + i);
    } while (++i < n);
}

/* Pre-activations of a block of units of one gate: bias + W x + U operand, in the format of the gate's rows [R9]. The
 * model proves that no partial sum reaches 2^31. */
static void gate_sums(const qg_gru *gru, gate which, uint16_t first_unit, uint16_t n, const int16_t *x,
                      const int16_t *operand, int32_t sums[BLOCK_UNITS])
{
    const uint16_t first_row = (uint16_t)((uint16_t)which * gru->n_units + first_unit);
    read_s32(gru->bias + first_row, n, sums);
    qg_affine_add(&gru->input, first_row, n, x, sums);
    qg_affine_add(&gru->recurrent, first_row, n, operand, sums);
}

/* u or r of all units [R10]. */
static void gate_values(const qg_gru *gru, gate which, const int16_t *x, const int16_t *h, uint16_t *values,
                        int32_t sums[BLOCK_UNITS])
{
    uint16_t unit = 0;
    do {
        const uint16_t n = block_size(gru->n_units, unit);
        size_t i = 0;
        gate_sums(gru, which, unit, n, x, h, sums);
        do {
            /* u = 2^15 - gate(a) = gate(-a); |a| < 2^31 */
            values[i] = gru->gate(which == UPDATE ? -sums[i] : sums[i]);
        } while (++i < n);
        values += n;
        unit = (uint16_t)(unit + n);
    } while (unit < gru->n_units);
}

/* n of a block of units, in the state's format [R19]. */
static void candidates(const qg_gru *gru, const int32_t *sums, uint16_t n, int16_t *values)
{
    const uint8_t shift = gru->state_shift;
    size_t i = 0;
    do {
        const int16_t t = gru->candidate(sums[i]);
        values[i] = shift == 0 ? t : (int16_t)qg_round_shift(t, shift);
    } while (++i < n);
}

/* h' = h + u (n - h), its remainder kept in the residual [R12]. */
static void update_state(const qg_gru *gru, int16_t *h, uint16_t *residual, const qg_gates *gates)
{
    const uint16_t *const u = gates->u;
    const int16_t *const n = gates->n;
    size_t i = 0;
    do {
        /* |n - h| <= 2^16 - 1, u <= 2^15, residual < 2^15: |acc| < 2^31. h' lies between h and n. */
        const int32_t acc = (int32_t)u[i] * ((int32_t)n[i] - h[i]) + residual[i];
        h[i] = (int16_t)(h[i] + (acc >> 15));
        residual[i] = (uint16_t)(acc & 0x7fff);
    } while (++i < gru->n_units);
}

void qg_gru_reset(const qg_gru *gru, int16_t *h, uint16_t *residual)
{
    const int16_t *const initial_state = gru->initial_state;
    size_t i = 0;
    do {
        h[i] = (int16_t)(initial_state == NULL ? 0 : QG_READ_S16(initial_state + i));
        residual[i] = 0;
    } while (++i < gru->n_units);
}

QG_KERNEL void qg_gru_reset_after(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                  const qg_gates *gates, int16_t *product)
{
    const uint16_t n_units = gru->n_units;
    int32_t sums[BLOCK_UNITS];
    uint16_t unit = 0;
    (void)product;
    gate_values(gru, UPDATE, x, h, gates->u, sums);
    gate_values(gru, RESET, x, h, gates->r, sums);
    do {
        const uint16_t row = (uint16_t)(CANDIDATE * n_units + unit);
        const uint16_t n = block_size(n_units, unit);
        const uint16_t *const r = gates->r + unit;
        const int32_t *const bias = gru->bias + row;
        size_t i = 0;
        read_s32(gru->recurrent_bias + unit, n, sums);
        qg_affine_add(&gru->recurrent, row, n, h, sums);
        do { /* [R11a] */
            sums[i] = qg_reset_product(sums[i], r[i]) + QG_READ_S32(bias + i);
        } while (++i < n);
        qg_affine_add(&gru->input, row, n, x, sums);
        candidates(gru, sums, n, gates->n + unit);
        unit = (uint16_t)(unit + n);
    } while (unit < n_units);
    update_state(gru, h, residual, gates);
}

QG_KERNEL void qg_gru_reset_before(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                   const qg_gates *gates, int16_t *product)
{
    const uint16_t n_units = gru->n_units;
    int32_t sums[BLOCK_UNITS];
    uint16_t unit = 0;
    gate_values(gru, UPDATE, x, h, gates->u, sums);
    gate_values(gru, RESET, x, h, gates->r, sums);
    do { /* [R11b] |h r| <= 2^30 */
        product[unit] = (int16_t)qg_round_shift((int32_t)h[unit] * (int32_t)gates->r[unit], 15);
    } while (++unit < n_units);
    unit = 0;
    do {
        const uint16_t n = block_size(n_units, unit);
        gate_sums(gru, CANDIDATE, unit, n, x, product, sums);
        candidates(gru, sums, n, gates->n + unit);
        unit = (uint16_t)(unit + n);
    } while (unit < n_units);
    update_state(gru, h, residual, gates);
}
