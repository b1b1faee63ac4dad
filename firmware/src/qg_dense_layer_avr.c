/* A dense layer [R14], for AVRs: row by row. */
#include "qg_avr.h"

#if QG_KERNELS == QG_KERNELS_AVR

void qg_dense_layer(const qg_dense *dense, const int16_t *x, int16_t *out)
{
    const qg_matrix *const matrix = &dense->matrix;
    for (uint16_t i = 0; i < matrix->n_rows; ++i) {
        const qg_row row = qg_row_of_section(i, matrix->n_rows);
        const int32_t sum = QG_READ_S32(dense->bias + i) + qg_affine_row(matrix, row, x);
        *out++ = dense->activation(sum);
    }
}

#endif
