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

void qg_dense_layer(const qg_dense *dense, const int16_t *x, int16_t *out)
{
    const size_t n_rows = dense->matrix.n_rows;
    size_t row = 0;
    do {
        const size_t left = n_rows - row;
        const size_t n = left < QG_BLOCK_ROWS ? left : QG_BLOCK_ROWS;
        int32_t sums[QG_BLOCK_ROWS];
        size_t i = 0;
        qg_read_s32(dense->bias + row, n, sums);
        qg_affine_add(&dense->matrix, row, n, x, sums);
        do {
            out[row + i] = dense->activation(sums[i]);
        } while (++i < n);
        row += n;
    } while (row < n_rows);
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
