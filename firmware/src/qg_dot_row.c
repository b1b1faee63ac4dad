/* The exact dot product of a row that lies by itself. */
#include "quantgru.h"

#if QG_KERNELS != QG_KERNELS_AVR

QG_KERNEL int32_t qg_dot_row(const int8_t *codes, uint16_t n_columns, const int16_t *x)
{
    const int16_t *const end = x + n_columns;
    int32_t acc = 0;
    while (x != end) {
        acc += (int32_t)QG_READ_S8(codes) * *x;
        ++codes;
        ++x;
    }
    return acc;
}

#endif
