/* UART and timer 0 of the nRF51822. Its Cortex-M0 has no SysTick. */
#include "port.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define UART_START_RECEIVER REGISTER(0x40002000u)
#define UART_START_TRANSMITTER REGISTER(0x40002008u)
#define UART_RECEIVED REGISTER(0x40002108u)
#define UART_TRANSMITTED REGISTER(0x4000211cu)
#define UART_ENABLE REGISTER(0x40002500u)
#define UART_TRANSMIT_PIN REGISTER(0x4000250cu)
#define UART_RECEIVE_PIN REGISTER(0x40002514u)
#define UART_RECEIVE REGISTER(0x40002518u)
#define UART_TRANSMIT REGISTER(0x4000251cu)
#define UART_BAUD_RATE REGISTER(0x40002524u)

#define TIMER_START REGISTER(0x40008000u)
#define TIMER_CAPTURE REGISTER(0x40008040u)
#define TIMER_WIDTH REGISTER(0x40008508u)
#define TIMER_PRESCALER REGISTER(0x40008510u)
#define TIMER_CAPTURED REGISTER(0x40008540u)

enum { UART_ON = 4, BAUD_115200 = 0x01d7e000, PIN_TRANSMIT = 24, PIN_RECEIVE = 25, TIMER_OF_32_BITS = 3 };

void port_init(void)
{
    UART_TRANSMIT_PIN = PIN_TRANSMIT;
    UART_RECEIVE_PIN = PIN_RECEIVE;
    UART_BAUD_RATE = BAUD_115200;
    UART_ENABLE = UART_ON;
    UART_START_RECEIVER = 1;
    UART_START_TRANSMITTER = 1;
    TIMER_WIDTH = TIMER_OF_32_BITS;
    TIMER_PRESCALER = 0;
    TIMER_START = 1;
}

uint8_t port_read_byte(void)
{
    while (UART_RECEIVED == 0) {
    }
    UART_RECEIVED = 0; /* before the byte is taken: taking it lets the next one in */
    return (uint8_t)(UART_RECEIVE & 0xff);
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        UART_TRANSMITTED = 0;
        UART_TRANSMIT = bytes[i];
        while (UART_TRANSMITTED == 0) {
        }
    }
}

uint32_t port_ticks(void)
{
    TIMER_CAPTURE = 1;
    return TIMER_CAPTURED;
}
