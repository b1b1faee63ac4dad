/* What a board must provide: two functions for the line, one for the time, and port_config.h in its folder.
 *
 * port_config.h defines
 *   PORT_TARGET        a string of at most 24 characters, shown to the user
 *   PORT_TIMER_KIND    one of the PORT_TIMER_* below
 *   PORT_TIMER_HZ      ticks per second, 0 if there is no timer
 *   PORT_BUFFER_BYTES  bytes of each of the two frame buffers; raised if one step of the model needs more
 */
#ifndef PORT_H
#define PORT_H

#include <stdint.h>

/* What one tick counts. */
#define PORT_TIMER_NONE 0
#define PORT_TIMER_CYCLES 1
#define PORT_TIMER_INSTRUCTIONS 2
#define PORT_TIMER_TIME 3

#include "port_config.h"

/* Called once, first. */
void port_init(void);

/* Waits for a byte of the line. */
uint8_t port_read_byte(void);

/* Sends n bytes, or queues them; what is queued is sent before port_read_byte waits. */
void port_write(const uint8_t *bytes, uint16_t n);

/* A counter that wraps at 2^32; 0 if there is no timer. A step must be shorter than a wrap. */
uint32_t port_ticks(void);

#endif
