/* Exact dot products of a block of rows, for targets without a multiplication instruction. The eight rows share a table
 * of the products of x with one digit: a product with a code is two of them, 19 instructions instead of up to 170. */
#include "quantgru.h"

#if QG_KERNELS == QG_KERNELS_NO_MULTIPLIER

/* A code is 16 high + low: high = (code + 8) >> 4, low = (code + 8) % 16 - 8, both -8 ... 8. */
#define DIGIT_LIMIT 8

/* digit x for all digits, from the lowest on. */
static inline void make_products(int32_t x, int32_t products[2 * DIGIT_LIMIT + 1])
{
    int32_t product = -DIGIT_LIMIT * x;
    int32_t *const end = products + 2 * DIGIT_LIMIT;
    while (products != end) {
        *products++ = product;
        product += x;
    }
    *products = product;
}

QG_KERNEL void qg_dot_block(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS])
{
    const int16_t *const end = x + n_columns;
    int32_t products[2 * DIGIT_LIMIT + 1];
    const int32_t *const of_zero = products + DIGIT_LIMIT;
    for (uint8_t row = 0; row < QG_BLOCK_ROWS; ++row) {
        dots[row] = 0;
    }
    do {
        make_products(*x, products);
        ++x;
        for (int32_t *dot = dots; dot != dots + QG_BLOCK_ROWS; ++dot) {
            const int32_t biased = QG_READ_S8(codes) + DIGIT_LIMIT;
            ++codes;
            *dot += products[biased & 0xf] + of_zero[biased >> 4] * 16;
        }
    } while (x != end);
}

#endif
