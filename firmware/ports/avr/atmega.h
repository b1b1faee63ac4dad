/* What the ATmega boards share; the port_config.h of each includes this file. */
#include <avr/io.h>

#define PORT_TIMER_KIND PORT_TIMER_CYCLES
#define PORT_TIMER_HZ F_CPU
#define PORT_RECEIVE_BYTES 255
#define PORT_REPLIES 2
#define PORT_STACK_LOWEST __heap_start
#define PORT_STACK_END ((uint8_t *)RAMEND + 1)
extern uint8_t __heap_start[]; /* a symbol of the linker */
