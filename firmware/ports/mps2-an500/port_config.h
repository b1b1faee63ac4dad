#include "../cmsdk/mps.h"

#define PORT_TARGET "mps2-an500"
#define PORT_TIMER_HZ 25000000
#define PORT_MODEL_BYTES 1048576
#define PORT_UART 0x40004000u
