/* The 16550 UART of QEMU's machine "virt", and the counter of instructions that RISC-V cores have. */
#include "port.h"

typedef struct uart {
    volatile uint8_t data;
    volatile uint8_t interrupts;
    volatile uint8_t buffers;
    volatile uint8_t format;
    volatile uint8_t modem;
    volatile uint8_t state; /* bit 0: byte received, bit 5: transmitter empty */
} uart;

#define UART ((uart *)0x10000000u)

enum { BYTE_RECEIVED = 1, TRANSMITTER_EMPTY = 32, BUFFERS_ON_AND_EMPTY = 7, EIGHT_BITS = 3 };

void port_init(void)
{
    UART->buffers = BUFFERS_ON_AND_EMPTY;
    UART->format = EIGHT_BITS;
}

uint8_t port_read_byte(void)
{
    while ((UART->state & BYTE_RECEIVED) == 0) {
    }
    return UART->data;
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        while ((UART->state & TRANSMITTER_EMPTY) == 0) {
        }
        UART->data = bytes[i];
    }
}

uint32_t port_ticks(void)
{
    uint32_t instructions;
    __asm__ volatile("csrr %0, minstret" : "=r"(instructions));
    return instructions;
}
