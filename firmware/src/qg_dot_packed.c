/* Exact dot products of a block of rows with codes of 2 ... 7 bits, for targets with registers for eight sums. */
#include "qg_packed.h"

#if QG_KERNELS == QG_KERNELS_MANY_REGISTERS

/* Rows 0 ... 3 lie in the first word, 4 ... 7 in the second, which overlaps it, or is the same: up to 4 bits, one word
 * has all. |code x| <= 2^6 2^15. */
#define COLUMN                                                                                                         \
    do {                                                                                                               \
        const int32_t value = *x++;                                                                                    \
        const uint32_t low = qg_packed_bytes(codes, n_bytes);                                                          \
        const uint32_t high = bits <= 4 ? low : qg_packed_bytes(codes + bits - n_bytes, n_bytes);                      \
        codes += bits;                                                                                                 \
        acc0 += qg_packed_code(low, 0, bits) * value;                                                                  \
        acc1 += qg_packed_code(low, bits, bits) * value;                                                               \
        acc2 += qg_packed_code(low, (uint8_t)(2 * bits), bits) * value;                                                \
        acc3 += qg_packed_code(low, (uint8_t)(3 * bits), bits) * value;                                                \
        acc4 += qg_packed_code(high, row4, bits) * value;                                                              \
        acc5 += qg_packed_code(high, (uint8_t)(row4 + bits), bits) * value;                                            \
        acc6 += qg_packed_code(high, (uint8_t)(row4 + 2 * bits), bits) * value;                                        \
        acc7 += qg_packed_code(high, (uint8_t)(row4 + 3 * bits), bits) * value;                                        \
    } while (0)

static inline void dot_block(const int8_t *codes, uint8_t bits, uint16_t n_columns, const int16_t *x,
                             int32_t dots[QG_BLOCK_ROWS])
{
    const int16_t *const end = x + n_columns;
    const uint8_t n_bytes = bits <= 4 ? bits : 4;
    const uint8_t row4 = (uint8_t)(4 * bits - 8 * (bits - n_bytes)); /* where it begins in `high` */
    int32_t acc0 = 0, acc1 = 0, acc2 = 0, acc3 = 0;
    int32_t acc4 = 0, acc5 = 0, acc6 = 0, acc7 = 0;
    switch (n_columns % 2) { /* two columns a turn, the first turn with one of them if their number is odd */
        for (;;) {
        case 0:
            COLUMN; /* fall through */
        case 1:
            COLUMN;
            if (x == end) {
                break;
            }
        }
    }
    dots[0] = acc0;
    dots[1] = acc1;
    dots[2] = acc2;
    dots[3] = acc3;
    dots[4] = acc4;
    dots[5] = acc5;
    dots[6] = acc6;
    dots[7] = acc7;
}

QG_PACKED_KERNEL(2, dot_block)
QG_PACKED_KERNEL(3, dot_block)
QG_PACKED_KERNEL(4, dot_block)
QG_PACKED_KERNEL(5, dot_block)
QG_PACKED_KERNEL(6, dot_block)
QG_PACKED_KERNEL(7, dot_block)

#endif
