/* Dense layers [R14]. */
#include "qg_fixed.h"
#include "quantgru.h"

int16_t qg_linear(int32_t a)
{
    return qg_saturate16(a);
}

int16_t qg_relu(int32_t a)
{
    return qg_saturate16(a < 0 ? 0 : a);
}

int16_t qg_signed_sigmoid(int32_t a)
{
    const uint16_t y = qg_sigmoid(a);
    return (int16_t)(y < INT16_MAX ? y : INT16_MAX);
}

void qg_head(const qg_model *model, const int16_t *x, int16_t *const vectors[2], int16_t *out)
{
    const qg_dense *dense = model->head;
    uint8_t left = model->n_head;
    do {
        int16_t *const y = --left == 0 ? out : vectors[x == vectors[0]]; /* the vector that x is not in */
        qg_dense_layer(dense, x, y);
        x = y;
        ++dense;
    } while (left != 0);
}
