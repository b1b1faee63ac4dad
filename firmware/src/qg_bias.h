/* A bias of a GRU layer, for each form in which they lie in memory. */
#ifndef QG_BIAS_H
#define QG_BIAS_H

#include "quantgru.h"

/* Element i of the layer's `biases`, bias or recurrent_bias. */
typedef int32_t qg_bias_at(const qg_gru *gru, const void *biases, size_t i);

static inline int32_t qg_exact_bias(const qg_gru *gru, const void *biases, size_t i)
{
    (void)gru;
    return QG_READ_S32((const int32_t *)biases + i);
}

static inline int32_t qg_short_bias(const qg_gru *gru, const void *biases, size_t i)
{
    return (int32_t)((uint32_t)QG_READ_S16((const int16_t *)biases + i) << gru->bias_shift);
}

#endif
