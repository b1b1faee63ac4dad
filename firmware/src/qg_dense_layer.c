/* A dense layer [R14]. */
#include "qg_affine.h"

#if QG_KERNELS != QG_KERNELS_AVR

void qg_dense_layer(const qg_dense *dense, const int16_t *x, int16_t *out)
{
    const size_t n_rows = dense->matrix.n_rows;
    size_t row = 0;
    do {
        const size_t left = n_rows - row;
        const size_t n = left < QG_BLOCK_ROWS ? left : QG_BLOCK_ROWS;
        int32_t sums[QG_BLOCK_ROWS];
        size_t i = 0;
        do {
            sums[i] = QG_READ_S32(dense->bias + row + i);
        } while (++i < n);
        qg_affine_add(&dense->matrix, row, n, x, sums);
        i = 0;
        do {
            out[row + i] = dense->activation(sums[i]);
        } while (++i < n);
        row += n;
    } while (row < n_rows);
}

#endif
