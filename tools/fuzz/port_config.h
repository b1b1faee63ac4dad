/* A board with small buffers: limits are near. */
#ifndef PORT_CONFIG_H
#define PORT_CONFIG_H

#define PORT_TARGET "fuzz"
#define PORT_TIMER_KIND PORT_TIMER_TIME
#define PORT_TIMER_HZ 1000000ul
#define PORT_BUFFER_BYTES 128
#define PORT_RECEIVE_BYTES 64
#define PORT_REPLIES 2
#define PORT_MODEL_BYTES 1024

#endif
