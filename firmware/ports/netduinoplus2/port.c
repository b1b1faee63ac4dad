/* USART 1 of an STM32F405 on PB6 (transmit) and PB7 (receive), at the clock after a reset: its 16 MHz oscillator.
 * Registers are those of ST's RM0090. QEMU ignores clocks and pins; they were not tried on a chip. */
#include "port.h"
#include "systick.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define RCC_AHB1ENR REGISTER(0x40023830u)
#define RCC_APB2ENR REGISTER(0x40023844u)
#define GPIOB_MODER REGISTER(0x40020400u)
#define GPIOB_PUPDR REGISTER(0x4002040cu)
#define GPIOB_AFRL REGISTER(0x40020420u)
#define USART1_SR REGISTER(0x40011000u)
#define USART1_DR REGISTER(0x40011004u)
#define USART1_BRR REGISTER(0x40011008u)
#define USART1_CR1 REGISTER(0x4001100cu)

enum { GPIOB_CLOCK = 1 << 1, USART1_CLOCK = 1 << 4 };
enum { RECEIVED = 1 << 5, CAN_TRANSMIT = 1 << 7, ON = 1 << 13, TRANSMITTER = 1 << 3, RECEIVER = 1 << 2 };
enum { CLOCK_HZ = PORT_TIMER_HZ, BAUD_RATE = 115200 };

static void connect_pins(void)
{
    GPIOB_PUPDR |= 1u << 14;            /* PB7 is high where nothing is connected: no noise comes in */
    GPIOB_AFRL |= 7u << 24 | 7u << 28;  /* alternate function 7 of PB6 and PB7: USART 1 */
    GPIOB_MODER |= 2u << 12 | 2u << 14; /* the alternate function */
}

void port_init(void)
{
    RCC_AHB1ENR |= GPIOB_CLOCK;
    RCC_APB2ENR |= USART1_CLOCK;
    (void)RCC_APB2ENR; /* a clock runs two cycles after it was switched on */
    connect_pins();
    USART1_BRR = (CLOCK_HZ + BAUD_RATE / 2) / BAUD_RATE; /* to nearest: 0.1 % off */
    USART1_CR1 = ON | TRANSMITTER | RECEIVER;
    systick_init();
}

uint8_t port_read_byte(void)
{
    while ((USART1_SR & RECEIVED) == 0) {
    }
    return (uint8_t)(USART1_DR & 0xff);
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        while ((USART1_SR & CAN_TRANSMIT) == 0) {
        }
        USART1_DR = bytes[i];
    }
}
