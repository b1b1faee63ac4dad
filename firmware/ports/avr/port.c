/* USART 0 and timer 1 of an ATmega. */
#include "port.h"

#include <avr/interrupt.h>
#include <avr/io.h>

#ifndef USART_RX_vect /* of an ATmega with more than one */
#define USART_RX_vect USART0_RX_vect
#endif

static volatile uint16_t wraps; /* of timer 1 */

static volatile uint8_t received[256]; /* a ring of 255 bytes: the indexes go round by themselves */
static volatile uint8_t write_at;
static volatile uint8_t read_at;

/* A byte that finds the ring full is lost, and with it its frame. */
ISR(USART_RX_vect)
{
    const uint8_t byte = UDR0;
    const uint8_t next = (uint8_t)(write_at + 1);
    if (next != read_at) {
        received[write_at] = byte;
        write_at = next;
    }
}

ISR(TIMER1_OVF_vect)
{
    ++wraps;
}

void port_init(void)
{
    UCSR0A = 1 << U2X0;
    UBRR0 = (F_CPU + 4UL * 115200) / (8UL * 115200) - 1; /* to nearest */
    UCSR0C = (1 << UCSZ01) | (1 << UCSZ00);              /* eight bits, no parity */
    UCSR0B = (1 << RXCIE0) | (1 << RXEN0) | (1 << TXEN0);
    TIMSK1 = 1 << TOIE1;
    TCCR1B = 1 << CS10; /* counts cycles */
    sei();
}

uint8_t port_read_byte(void)
{
    while (read_at == write_at) {
    }
    const uint8_t byte = received[read_at];
    ++read_at;
    return byte;
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        while ((UCSR0A & (1 << UDRE0)) == 0) {
        }
        UDR0 = bytes[i];
    }
}

uint32_t port_ticks(void)
{
    cli();
    uint16_t low = TCNT1;
    uint16_t high = wraps;
    if ((TIFR1 & (1 << TOV1)) != 0) { /* wrapped, and its interrupt waits */
        low = TCNT1;
        ++high;
    }
    sei();
    return (uint32_t)high << 16 | low;
}
