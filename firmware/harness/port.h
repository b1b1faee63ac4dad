/* What a board must provide: two functions for the line, one for the time, and port_config.h in its folder.
 *
 * port_config.h defines
 *   PORT_TARGET        a string of at most 24 characters, shown to the user
 *   PORT_TIMER_KIND    one of the PORT_TIMER_* below
 *   PORT_TIMER_HZ      ticks per second, 0 if there is no timer
 *   PORT_BUFFER_BYTES  bytes of a frame buffer; raised if one step of the model needs more
 *   PORT_RECEIVE_BYTES bytes of the line that are kept while the program computes, by an interrupt or by a large FIFO;
 *                      0 if there is neither: then the host sends nothing before it has its answer
 *   PORT_REPLIES       replies that are kept, a power of two; each takes a frame buffer. The board may have as many
 *                      requests before it. 1 if PORT_RECEIVE_BYTES is 0
 * for test firmware to which a model is sent, on targets with one address space:
 *   PORT_MODEL_BYTES   RAM for it, a multiple of 8
 * and, where the deepest stack is to be measured, its ends as uint8_t *, with declarations of what they are made of:
 *   PORT_STACK_LOWEST  the lowest byte that it may take
 *   PORT_STACK_END     behind its highest byte
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

/* A counter that wraps at 2^32; 0 if there is no timer. A step, or the run of a whole sequence, must be shorter than a
 * wrap. */
uint32_t port_ticks(void);

#endif
