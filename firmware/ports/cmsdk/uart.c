/* A CMSDK UART, as the boards of ARM's MPS series have it. port_config.h says where it is, as PORT_UART. */
#include "port.h"
#include "systick.h"

typedef struct uart {
    volatile uint32_t data;
    volatile uint32_t state; /* bit 0: transmitter full, bit 1: byte received */
    volatile uint32_t control;
    volatile uint32_t interrupts;
    volatile uint32_t divider;
} uart;

#define UART ((uart *)PORT_UART)

enum { TRANSMITTER_FULL = 1, BYTE_RECEIVED = 2, TRANSMIT_AND_RECEIVE = 3, BAUD_RATE = 115200 };

void port_init(void)
{
    UART->divider = PORT_TIMER_HZ / BAUD_RATE;
    UART->control = TRANSMIT_AND_RECEIVE;
    (void)UART->data; /* drops what the receiver held; in QEMU, it also makes the emulator look for bytes right away */
    systick_init();
}

uint8_t port_read_byte(void)
{
    while ((UART->state & BYTE_RECEIVED) == 0) {
    }
    return (uint8_t)(UART->data & 0xff);
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        while ((UART->state & TRANSMITTER_FULL) != 0) {
        }
        UART->data = bytes[i];
    }
}
