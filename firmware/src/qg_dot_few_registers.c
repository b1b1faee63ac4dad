/* Exact dot products of a block of rows, for targets with eight or sixteen registers: four sums at a time. */
#include "quantgru.h"

#if QG_KERNELS == QG_KERNELS_FEW_REGISTERS

/* Four rows of a block: |code x| <= 2^7 2^15. */
static inline void dot_half_block(const int8_t *codes, const int16_t *x, const int16_t *end, int32_t *dots)
{
    int32_t acc0 = 0, acc1 = 0, acc2 = 0, acc3 = 0;
    do {
        const int32_t value = *x++;
        acc0 += QG_READ_S8(codes + 0) * value;
        acc1 += QG_READ_S8(codes + 1) * value;
        acc2 += QG_READ_S8(codes + 2) * value;
        acc3 += QG_READ_S8(codes + 3) * value;
        codes += QG_BLOCK_ROWS;
    } while (x != end);
    dots[0] = acc0;
    dots[1] = acc1;
    dots[2] = acc2;
    dots[3] = acc3;
}

QG_KERNEL void qg_dot_block_8(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS])
{
    const int16_t *const end = x + n_columns;
    uint8_t half = 2;
    do {
        dot_half_block(codes, x, end, dots);
        codes += QG_BLOCK_ROWS / 2;
        dots += QG_BLOCK_ROWS / 2;
    } while (--half != 0);
}

#endif
