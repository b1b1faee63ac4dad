/* Exact dot products of a block of rows, for targets without a multiplication instruction. The eight rows share a table
 * of the products of x with one digit: a product with a code is two of them, 19 instructions instead of up to 170. */
#include "qg_packed.h"

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

static inline void clear(int32_t dots[QG_BLOCK_ROWS])
{
    for (uint8_t row = 0; row < QG_BLOCK_ROWS; ++row) {
        dots[row] = 0;
    }
}

/* code x, -128 <= code <= 128 */
static inline int32_t product_of(int32_t code, const int32_t products[2 * DIGIT_LIMIT + 1])
{
    const int32_t biased = code + DIGIT_LIMIT;
    return products[biased & 0xf] + products[DIGIT_LIMIT + (biased >> 4)] * 16;
}

QG_KERNEL void qg_dot_block_8(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS])
{
    const int16_t *const end = x + n_columns;
    int32_t products[2 * DIGIT_LIMIT + 1];
    clear(dots);
    do {
        make_products(*x, products);
        ++x;
        for (int32_t *dot = dots; dot != dots + QG_BLOCK_ROWS; ++dot) {
            *dot += product_of(QG_READ_S8(codes), products);
            ++codes;
        }
    } while (x != end);
}

/* code x, of a code that is 256 high + low: high = (code + 128) >> 8, low = (code + 128) % 256 - 128. */
static inline int32_t product_of_wide(int32_t code, const int32_t products[2 * DIGIT_LIMIT + 1])
{
    const int32_t biased = code + 128;
    return product_of((biased & 0xff) - 128, products) + product_of(biased >> 8, products) * 256;
}

QG_KERNEL void qg_dot_block_16(const int8_t *bytes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS])
{
    const int16_t *codes = (const int16_t *)(const void *)bytes;
    const int16_t *const end = x + n_columns;
    int32_t products[2 * DIGIT_LIMIT + 1];
    clear(dots);
    do {
        make_products(*x, products);
        ++x;
        for (int32_t *dot = dots; dot != dots + QG_BLOCK_ROWS; ++dot) {
            *dot += product_of_wide(QG_READ_S16(codes), products);
            ++codes;
        }
    } while (x != end);
}

/* Four rows of a column, whose codes begin with bit `first`, 0 or 4, of its first byte. Up to 4 bits are one digit. */
static inline void add_packed(const int8_t *codes, uint8_t first, uint8_t bits,
                              const int32_t products[2 * DIGIT_LIMIT + 1], int32_t *dots)
{
    uint32_t word = qg_packed_bytes(codes, (uint8_t)((first + 4 * bits + 7) / 8)) >> first;
    for (int32_t *dot = dots; dot != dots + QG_BLOCK_ROWS / 2; ++dot) {
        const int32_t code = qg_packed_code(word, 0, bits);
        *dot += bits <= 4 ? products[DIGIT_LIMIT + code] : product_of(code, products);
        word >>= bits;
    }
}

static inline void dot_packed(const int8_t *codes, uint8_t bits, uint16_t n_columns, const int16_t *x,
                              int32_t dots[QG_BLOCK_ROWS])
{
    const int16_t *const end = x + n_columns;
    int32_t products[2 * DIGIT_LIMIT + 1];
    clear(dots);
    do {
        make_products(*x, products);
        ++x;
        add_packed(codes, 0, bits, products, dots);
        add_packed(codes + bits / 2, (uint8_t)(bits % 2 * 4), bits, products, dots + QG_BLOCK_ROWS / 2);
        codes += bits;
    } while (x != end);
}

QG_PACKED_KERNEL(2, dot_packed)
QG_PACKED_KERNEL(3, dot_packed)
QG_PACKED_KERNEL(4, dot_packed)
QG_PACKED_KERNEL(5, dot_packed)
QG_PACKED_KERNEL(6, dot_packed)
QG_PACKED_KERNEL(7, dot_packed)

#endif
