/* gesture: conversion from and to float, exported by quantgru. Include it only where floats are at hand. */
#ifndef GESTURE_FLOAT_H
#define GESTURE_FLOAT_H

#include "gesture.h"
#include "quantgru_float.h"

/* The raw value of input `feature` from a real one in the units of the calibration data; saturates, NaN becomes 0. */
static inline int16_t gesture_input_from_float(uint16_t feature, float value)
{
    static const float scales[GESTURE_INPUTS] = {
        4096.0f, 512.0f, 16.0f,
    };
    return qg_raw_from_float(value * scales[feature]);
}

/* The real value of a raw output. */
static inline float gesture_output_to_float(int16_t raw)
{
    return (float)raw * 0.00048828125f;
}

#endif
