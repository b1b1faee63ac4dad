/* Any board with an Arduino core. */
#define PORT_TARGET "arduino"
#define PORT_TIMER_KIND PORT_TIMER_TIME
#define PORT_TIMER_HZ 1000000 /* micros() */
#define PORT_RECEIVE_BYTES 63 /* of Serial, where it is smallest */
#define PORT_REPLIES 1

#ifndef PORT_BAUD
#define PORT_BAUD 115200 /* of Serial; another one is told by quantgru hil --baud */
#endif

#ifdef __AVR__
#include <avr/io.h>
#define PORT_STACK_LOWEST (&__brkval != 0 && __brkval != 0 ? __brkval : __heap_start)
#define PORT_STACK_END ((uint8_t *)RAMEND + 1)
extern uint8_t __heap_start[];                  /* a symbol of the linker */
extern uint8_t *__brkval __attribute__((weak)); /* of malloc: the end of its heap; absent or 0 if there is none */
#endif

#if defined(__AVR__) && RAMEND < 0x1000
#define PORT_BUFFER_BYTES 128 /* of some 2,048 */
#else
#define PORT_BUFFER_BYTES 512
#endif
