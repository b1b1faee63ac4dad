/* Exact dot products of a block of rows of weights with int16 activations: the kernels that take the time, for targets
 * with registers for eight sums.
 *
 * The model proves that no partial sum of a row reaches 2^31, in whatever order it is added up. Targets may therefore
 * have files of their own.
 */
#include "quantgru.h"

#if QG_KERNELS == QG_KERNELS_MANY_REGISTERS

/* One column: |code x| <= 2^15 2^15. The eight rows share the load of x. */
#define COLUMN(READ, c)                                                                                                \
    do {                                                                                                               \
        acc0 += (int32_t)READ(codes + QG_BLOCK_ROWS * (c) + 0) * x[c];                                                 \
        acc1 += (int32_t)READ(codes + QG_BLOCK_ROWS * (c) + 1) * x[c];                                                 \
        acc2 += (int32_t)READ(codes + QG_BLOCK_ROWS * (c) + 2) * x[c];                                                 \
        acc3 += (int32_t)READ(codes + QG_BLOCK_ROWS * (c) + 3) * x[c];                                                 \
        acc4 += (int32_t)READ(codes + QG_BLOCK_ROWS * (c) + 4) * x[c];                                                 \
        acc5 += (int32_t)READ(codes + QG_BLOCK_ROWS * (c) + 5) * x[c];                                                 \
        acc6 += (int32_t)READ(codes + QG_BLOCK_ROWS * (c) + 6) * x[c];                                                 \
        acc7 += (int32_t)READ(codes + QG_BLOCK_ROWS * (c) + 7) * x[c];                                                 \
    } while (0)

/* A kernel for codes of a type; a function for both types, in which it is an argument, is not inlined at -Os.
 *
 * Four columns a turn; codes and x are behind the last of them. The first turn has the columns that do not fill one,
 * and begins in the middle: no second loop, which took 76 bytes on a Cortex-M4. */
#define DOT_BLOCK(bits, code_type, READ)                                                                               \
    QG_KERNEL void qg_dot_block_##bits(const int8_t *bytes, uint16_t n_columns, const int16_t *x,                      \
                                       int32_t dots[QG_BLOCK_ROWS])                                                    \
    {                                                                                                                  \
        const code_type *codes = (const code_type *)(const void *)bytes;                                               \
        const int16_t *const end = x + n_columns;                                                                      \
        const uint8_t n_first = (uint8_t)((n_columns - 1) % 4 + 1);                                                    \
        int32_t acc0 = 0, acc1 = 0, acc2 = 0, acc3 = 0;                                                                \
        int32_t acc4 = 0, acc5 = 0, acc6 = 0, acc7 = 0;                                                                \
        codes += n_first * QG_BLOCK_ROWS;                                                                              \
        x += n_first;                                                                                                  \
        switch (n_columns % 4) {                                                                                       \
            for (;;) {                                                                                                 \
                codes += 4 * QG_BLOCK_ROWS;                                                                            \
                x += 4; /* fall through */                                                                             \
            case 0:                                                                                                    \
                COLUMN(READ, -4); /* fall through */                                                                   \
            case 3:                                                                                                    \
                COLUMN(READ, -3); /* fall through */                                                                   \
            case 2:                                                                                                    \
                COLUMN(READ, -2); /* fall through */                                                                   \
            case 1:                                                                                                    \
                COLUMN(READ, -1);                                                                                      \
                if (x == end) {                                                                                        \
                    break;                                                                                             \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        dots[0] = acc0;                                                                                                \
        dots[1] = acc1;                                                                                                \
        dots[2] = acc2;                                                                                                \
        dots[3] = acc3;                                                                                                \
        dots[4] = acc4;                                                                                                \
        dots[5] = acc5;                                                                                                \
        dots[6] = acc6;                                                                                                \
        dots[7] = acc7;                                                                                                \
    }

DOT_BLOCK(8, int8_t, QG_READ_S8)
DOT_BLOCK(16, int16_t, QG_READ_S16)

#endif
