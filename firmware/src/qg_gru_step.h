/* One time step of a GRU layer, with either place of the reset gate [R9 ... R13, R19]. Each file that includes this has
 * the functions for one form of biases. */
#ifndef QG_GRU_STEP_H
#define QG_GRU_STEP_H

#include "qg_affine.h"
#include "qg_bias.h"

#if QG_KERNELS != QG_KERNELS_AVR

typedef enum { UPDATE, RESET, CANDIDATE } gate;

/* Units whose sums are in work at a time: a compromise between stack and calls. */
#define BLOCK_UNITS 32

/* A step, block of units by block of units. Loops over the units of a block test at their end: there is at least one.
 */
typedef struct step {
    const qg_gru *gru;
    const int16_t *x;
    const int16_t *operand; /* of U: h, or what the reset gate leaves of it */
    size_t unit;            /* the first of the block */
    size_t n;               /* units of the block */
    int32_t sums[BLOCK_UNITS];
} step;

/* Goes on to the next block. Returns 0 behind the last one. */
static size_t next_block(step *self)
{
    const size_t unit = self->unit + self->n;
    const size_t left = self->gru->n_units - unit;
    self->unit = unit;
    self->n = left < BLOCK_UNITS ? left : BLOCK_UNITS;
    return left;
}

static void first_block(step *self)
{
    self->unit = 0;
    self->n = 0;
    next_block(self);
}

/* Pre-activations of one gate: bias + W x + U operand, in the format of its rows [R9]. The model proves that no partial
 * sum reaches 2^31. */
static void gate_sums(step *self, gate which, qg_bias_at bias_at)
{
    const qg_gru *const gru = self->gru;
    const size_t row = (size_t)which * gru->n_units + self->unit;
    size_t i = 0;
    do {
        self->sums[i] = bias_at(gru, gru->bias, row + i);
    } while (++i < self->n);
    qg_affine_add(&gru->input, row, self->n, self->x, self->sums);
    qg_affine_add(&gru->recurrent, row, self->n, self->operand, self->sums);
}

/* u or r [R10]. */
static void gate_block(step *self, gate which, uint16_t *values, qg_bias_at bias_at)
{
    const size_t n = self->n;
    size_t i = 0;
    gate_sums(self, which, bias_at);
    values += self->unit;
    do {
        /* u = 2^15 - gate(a) = gate(-a); |a| < 2^31 */
        values[i] = self->gru->gate(which == UPDATE ? -self->sums[i] : self->sums[i]);
    } while (++i < n);
}

/* n, in the state's format [R19]. */
static void candidate_block(step *self, int16_t *values)
{
    const uint8_t shift = self->gru->state_shift;
    size_t i = 0;
    values += self->unit;
    do {
        const int16_t t = self->gru->candidate(self->sums[i]);
        values[i] = shift == 0 ? t : (int16_t)qg_round_shift(t, shift);
    } while (++i < self->n);
}

/* Pre-activations of n when the reset gate acts after the product [R11a]. */
static void reset_after_sums(step *self, const uint16_t *r, qg_bias_at bias_at)
{
    const qg_gru *const gru = self->gru;
    const size_t n = self->n;
    const size_t unit = self->unit;
    const size_t row = (size_t)CANDIDATE * gru->n_units + unit;
    int32_t *const sums = self->sums;
    size_t i = 0;
    do {
        sums[i] = bias_at(gru, gru->recurrent_bias, unit + i);
    } while (++i < n);
    qg_affine_add(&gru->recurrent, row, n, self->operand, sums);
    i = 0;
    do {
        sums[i] = qg_reset_product(sums[i], r[unit + i]) + bias_at(gru, gru->bias, row + i);
    } while (++i < n);
    qg_affine_add(&gru->input, row, n, self->x, sums);
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

/* The step of a layer that resets after the product. */
static inline void reset_after(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                               const qg_gates *gates, qg_bias_at bias_at)
{
    step self;
    self.gru = gru;
    self.x = x;
    self.operand = h;
    first_block(&self);
    do {
        gate_block(&self, UPDATE, gates->u, bias_at);
        gate_block(&self, RESET, gates->r, bias_at);
        reset_after_sums(&self, gates->r, bias_at);
        candidate_block(&self, gates->n);
    } while (next_block(&self));
    update_state(gru, h, residual, gates);
}

/* The step of a layer that resets before it, which leaves of h what `product` has. */
static inline void reset_before(const qg_gru *gru, const int16_t *x, int16_t *h, uint16_t *residual,
                                const qg_gates *gates, int16_t *product, qg_bias_at bias_at)
{
    step self;
    size_t i = 0;
    self.gru = gru;
    self.x = x;
    self.operand = h;
    first_block(&self);
    do {
        gate_block(&self, UPDATE, gates->u, bias_at);
        gate_block(&self, RESET, gates->r, bias_at);
    } while (next_block(&self));
    do { /* [R11b] |h r| <= 2^30 */
        product[i] = (int16_t)qg_round_shift((int32_t)h[i] * (int32_t)gates->r[i], 15);
    } while (++i < gru->n_units);
    self.operand = product;
    first_block(&self);
    do {
        gate_sums(&self, CANDIDATE, bias_at);
        candidate_block(&self, gates->n);
    } while (next_block(&self));
    update_state(gru, h, residual, gates);
}

#endif

#endif
