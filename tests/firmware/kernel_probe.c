/* The kernels that a target has of its own, called with any arguments: for test_kernels_on_boards.py, which writes
 * codes.h.
 *
 * A request is the number of a function and three arguments of 32 bits, low byte first; for dot products 16-bit values
 * follow. The answer is one number of 32 bits, or the eight of a block. PING is the first byte alone, and answered by
 * 0. */
#include "codes.h"
#include "port.h"
#include "qg_fixed.h"
#include "quantgru.h"

#if QG_KERNELS == QG_KERNELS_AVR

#include "qg_avr.h"

static int32_t dot_row(const int8_t *codes, uint16_t n_columns, const int16_t *x)
{
    return qg_dot_strided(codes, 1, n_columns, x);
}

static void dot_block(const int8_t *codes, uint16_t n_columns, const int16_t *x, int32_t dots[QG_BLOCK_ROWS])
{
    for (uint8_t row = 0; row < QG_BLOCK_ROWS; ++row) {
        dots[row] = qg_dot_strided(codes + row, QG_BLOCK_ROWS, n_columns, x);
    }
}

static int32_t requantize(int32_t shifted, uint16_t m, uint8_t s)
{
    return qg_requantize_avr(shifted, m, s);
}

#define reset_product qg_reset_product_avr

#else

#define dot_row qg_dot_row
#define dot_block qg_dot_block_8
#define reset_product qg_reset_product

static int32_t requantize(int32_t shifted, uint16_t m, uint8_t s)
{
    return qg_requantize(shifted, 0, m, s);
}

#endif

enum { ROUND_SHIFT, REQUANTIZE, RESET_PRODUCT, SIGMOID, TANH, SWEEP_SIGMOID, SWEEP_TANH, DOT_ROW, DOT_BLOCK, PING };

static int16_t inputs[MOST_COLUMNS];

static uint32_t receive(uint8_t n_bytes)
{
    uint32_t value = 0;
    for (uint8_t i = 0; i < n_bytes; ++i) {
        value |= (uint32_t)port_read_byte() << 8 * i;
    }
    return value;
}

static void send(uint32_t value)
{
    const uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
    port_write(bytes, sizeof bytes);
}

/* A sum that says in which order n results came. */
static uint32_t sweep(uint8_t function, int32_t a, int32_t n)
{
    uint32_t check = 0;
    for (uint32_t sum = 0; n != 0; --n, ++a) {
        sum += function == SWEEP_SIGMOID ? qg_sigmoid(a) : (uint32_t)(int32_t)qg_tanh(a);
        check += sum;
    }
    return check;
}

static void answer_dots(uint8_t function, uint16_t first, uint16_t n_columns)
{
    int32_t dots[QG_BLOCK_ROWS];
    for (uint16_t i = 0; i < n_columns; ++i) {
        inputs[i] = (int16_t)receive(2);
    }
    if (function == DOT_ROW) {
        send((uint32_t)dot_row(stored_codes + first, n_columns, inputs));
        return;
    }
    dot_block(stored_codes + first, n_columns, inputs, dots);
    for (uint8_t row = 0; row < QG_BLOCK_ROWS; ++row) {
        send((uint32_t)dots[row]);
    }
}

static int32_t value_of(uint8_t function, int32_t a, uint16_t b, uint8_t c)
{
    switch (function) {
    case ROUND_SHIFT:
        return qg_round_shift(a, (uint8_t)b);
    case REQUANTIZE:
        return requantize(a, b, c);
    case RESET_PRODUCT:
        return reset_product(a, b);
    case SIGMOID:
        return qg_sigmoid(a);
    default:
        return qg_tanh(a);
    }
}

int main(void)
{
    port_init();
    for (;;) {
        const uint8_t function = port_read_byte();
        if (function == PING) {
            send(0);
            continue;
        }
        const uint32_t a = receive(4);
        const uint32_t b = receive(4);
        const uint32_t c = receive(4);
        if (function >= DOT_ROW) {
            answer_dots(function, (uint16_t)a, (uint16_t)b);
        } else if (function >= SWEEP_SIGMOID) {
            send(sweep(function, (int32_t)a, (int32_t)b));
        } else {
            send((uint32_t)value_of(function, (int32_t)a, (uint16_t)b, (uint8_t)c));
        }
    }
}
