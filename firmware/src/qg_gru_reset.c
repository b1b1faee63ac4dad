/* The begin of a sequence [R13]. */
#include "quantgru.h"

void qg_gru_reset(const qg_gru *gru, int16_t *h, uint16_t *residual)
{
    const int16_t *const initial_state = gru->initial_state;
    size_t i = 0;
    do {
        h[i] = (int16_t)(initial_state == NULL ? 0 : QG_READ_S16(initial_state + i));
        residual[i] = 0;
    } while (++i < gru->n_units);
}
