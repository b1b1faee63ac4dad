/* UART 0 (a PL011) of the RP2040, as its emulator has it: clocks and pins are not set up, and there is no boot block. A
 * Pico runs the test firmware as a program of the Pico SDK. */
#include "port.h"
#include "systick.h"

typedef struct uart {
    volatile uint32_t data;
    uint32_t unused[5];
    volatile uint32_t state; /* bit 4: nothing received, bit 5: transmitter full */
    uint32_t unused_2[4];
    volatile uint32_t format;
    volatile uint32_t control;
} uart;

#define UART0 ((uart *)0x40034000u)

enum { NOTHING_RECEIVED = 1 << 4, TRANSMITTER_FULL = 1 << 5, EIGHT_BITS_AND_BUFFERS = 0x70, ENABLE_BOTH_WAYS = 0x301 };

void port_init(void)
{
    UART0->format = EIGHT_BITS_AND_BUFFERS;
    UART0->control = ENABLE_BOTH_WAYS;
    systick_init();
}

uint8_t port_read_byte(void)
{
    while ((UART0->state & NOTHING_RECEIVED) != 0) {
    }
    return (uint8_t)(UART0->data & 0xff);
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        while ((UART0->state & TRANSMITTER_FULL) != 0) {
        }
        UART0->data = bytes[i];
    }
}
