/* valve: conversion from and to float, exported by quantgru. Include it only where floats are at hand. */
#ifndef VALVE_FLOAT_H
#define VALVE_FLOAT_H

#include "valve.h"
#include "quantgru_float.h"

/* The raw value of input `feature` from a real one in the units of the calibration data; saturates, NaN becomes 0. */
static inline int16_t valve_input_from_float(uint16_t feature, float value)
{
    static const float scales[VALVE_INPUTS] = {
        8192.0f, 256.0f,
    };
    return qg_raw_from_float(value * scales[feature]);
}

/* The real value of a raw output. */
static inline float valve_output_to_float(int16_t raw)
{
    return (float)raw * 0.0001220703125f;
}

#endif
