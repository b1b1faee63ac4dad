/* Exact dot products of a block of rows, for targets with eight or sixteen registers: four sums at a time. */
#include "quantgru.h"

#if QG_KERNELS == QG_KERNELS_FEW_REGISTERS

/* A kernel for codes of a type; a function for both types, in which it is an argument, is not inlined at -Os.
 * |code x| <= 2^15 2^15. */
#define DOT_BLOCK(bits, code_type, READ)                                                                               \
    static inline void dot_half_block_##bits(const code_type *codes, const int16_t *x, const int16_t *end,             \
                                             int32_t *dots)                                                            \
    {                                                                                                                  \
        int32_t acc0 = 0, acc1 = 0, acc2 = 0, acc3 = 0;                                                                \
        do {                                                                                                           \
            const int32_t value = *x++;                                                                                \
            acc0 += READ(codes + 0) * value;                                                                           \
            acc1 += READ(codes + 1) * value;                                                                           \
            acc2 += READ(codes + 2) * value;                                                                           \
            acc3 += READ(codes + 3) * value;                                                                           \
            codes += QG_BLOCK_ROWS;                                                                                    \
        } while (x != end);                                                                                            \
        dots[0] = acc0;                                                                                                \
        dots[1] = acc1;                                                                                                \
        dots[2] = acc2;                                                                                                \
        dots[3] = acc3;                                                                                                \
    }                                                                                                                  \
                                                                                                                       \
    QG_KERNEL void qg_dot_block_##bits(const int8_t *bytes, uint16_t n_columns, const int16_t *x,                      \
                                       int32_t dots[QG_BLOCK_ROWS])                                                    \
    {                                                                                                                  \
        const code_type *codes = (const code_type *)(const void *)bytes;                                               \
        const int16_t *const end = x + n_columns;                                                                      \
        uint8_t half = 2;                                                                                              \
        do {                                                                                                           \
            dot_half_block_##bits(codes, x, end, dots);                                                                \
            codes += QG_BLOCK_ROWS / 2;                                                                                \
            dots += QG_BLOCK_ROWS / 2;                                                                                 \
        } while (--half != 0);                                                                                         \
    }

DOT_BLOCK(8, int8_t, QG_READ_S8)
DOT_BLOCK(16, int16_t, QG_READ_S16)

#endif
