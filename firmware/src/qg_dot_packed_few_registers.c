/* The same for targets with eight or sixteen registers: four sums at a time. */
#include "qg_packed.h"

#if QG_KERNELS == QG_KERNELS_FEW_REGISTERS

/* Rows whose codes begin with bit `first`, 0 or 4, of a column's first byte: |code x| <= 2^6 2^15. */
static inline void dot_half_block(const int8_t *codes, uint8_t first, uint8_t bits, const int16_t *x,
                                  const int16_t *end, int32_t *dots)
{
    const uint8_t n_bytes = (uint8_t)((first + 4 * bits + 7) / 8);
    int32_t acc0 = 0, acc1 = 0, acc2 = 0, acc3 = 0;
    do {
        const int32_t value = *x++;
        const uint32_t word = qg_packed_bytes(codes, n_bytes);
        codes += bits;
        acc0 += qg_packed_code(word, first, bits) * value;
        acc1 += qg_packed_code(word, (uint8_t)(first + bits), bits) * value;
        acc2 += qg_packed_code(word, (uint8_t)(first + 2 * bits), bits) * value;
        acc3 += qg_packed_code(word, (uint8_t)(first + 3 * bits), bits) * value;
    } while (x != end);
    dots[0] = acc0;
    dots[1] = acc1;
    dots[2] = acc2;
    dots[3] = acc3;
}

static inline void dot_block(const int8_t *codes, uint8_t bits, uint16_t n_columns, const int16_t *x,
                             int32_t dots[QG_BLOCK_ROWS])
{
    const int16_t *const end = x + n_columns;
    dot_half_block(codes, 0, bits, x, end, dots);
    dot_half_block(codes + bits / 2, (uint8_t)(bits % 2 * 4), bits, x, end, dots + QG_BLOCK_ROWS / 2);
}

QG_PACKED_KERNEL(2, dot_block)
QG_PACKED_KERNEL(3, dot_block)
QG_PACKED_KERNEL(4, dot_block)
QG_PACKED_KERNEL(5, dot_block)
QG_PACKED_KERNEL(6, dot_block)
QG_PACKED_KERNEL(7, dot_block)

#endif
