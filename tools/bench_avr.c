/* How deep the stack of a model's functions gets on an AVR, and how long its head takes: for bench_avr.py. Answers
 * any byte with four numbers of 16 bits. Built with -DWITHOUT_MODEL, it shows the flash and the RAM that are not the
 * model's. */
#include "model.h"
#include "port.h"

#include <avr/io.h>

#define PAINT 0xa5
#define PAINTED 600 /* bytes below the stack pointer */

#ifdef WITHOUT_MODEL
#define CALL(call)
#else
#define CALL(call) call
#endif

static model_state state;
static model_scratch scratch;
static int16_t inputs[MODEL_INPUTS];
static int16_t outputs[MODEL_OUTPUTS];

static void __attribute__((noinline)) reset(void)
{
    CALL(model_reset(&state));
}

static void __attribute__((noinline)) step(void)
{
    CALL(model_step(&state, &scratch, inputs));
}

static void __attribute__((noinline)) output(void)
{
    CALL(model_output(&state, &scratch, outputs));
}

/* Bytes of stack that `function` and what it calls write to, the return address included. Before port_init, for
 * interrupts would leave marks, too. */
static uint16_t __attribute__((noinline)) deepest(void (*function)(void))
{
    volatile uint8_t *const top = (volatile uint8_t *)SP; /* the first free byte */
    volatile uint8_t *byte = top - PAINTED;
    while (byte <= top) {
        *byte++ = PAINT;
    }
    function();
    byte = top - PAINTED;
    while (*byte == PAINT) {
        ++byte;
    }
    return (uint16_t)(top + 1 - byte);
}

static void send(uint16_t value)
{
    const uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};
    port_write(bytes, sizeof bytes);
}

int main(void)
{
    const uint16_t of_reset = deepest(reset);
    const uint16_t of_step = deepest(step);
    const uint16_t of_output = deepest(output);
    port_init();
    const uint32_t start = port_ticks();
    output();
    const uint32_t cycles = port_ticks() - start;
    for (;;) {
        (void)port_read_byte();
        send(of_reset);
        send(of_step);
        send(of_output);
        send((uint16_t)cycles);
    }
}
