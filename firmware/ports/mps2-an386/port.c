/* UART 0 and timer 0 of the MPS2 board (CMSDK peripherals at 25 MHz). */
#include "port.h"

typedef struct uart {
    volatile uint32_t data;
    volatile uint32_t state; /* bit 0: transmitter full, bit 1: byte received */
    volatile uint32_t control;
    volatile uint32_t interrupts;
    volatile uint32_t divider;
} uart;

typedef struct timer {
    volatile uint32_t control;
    volatile uint32_t value; /* counts down, 32 bits: no step is as long as a wrap of 171 s */
    volatile uint32_t reload;
} timer;

#define UART0 ((uart *)0x40004000u)
#define TIMER0 ((timer *)0x40000000u)

enum { TRANSMITTER_FULL = 1, BYTE_RECEIVED = 2, TRANSMIT_AND_RECEIVE = 3, TIMER_ENABLE = 1, BAUD_RATE = 115200 };

void port_init(void)
{
    UART0->divider = PORT_TIMER_HZ / BAUD_RATE;
    UART0->control = TRANSMIT_AND_RECEIVE;
    (void)UART0->data; /* drops what the receiver held; in QEMU, it also makes the emulator look for bytes right away */
    TIMER0->reload = UINT32_MAX;
    TIMER0->value = UINT32_MAX;
    TIMER0->control = TIMER_ENABLE;
}

uint8_t port_read_byte(void)
{
    while ((UART0->state & BYTE_RECEIVED) == 0) {
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

uint32_t port_ticks(void)
{
    return ~TIMER0->value;
}
