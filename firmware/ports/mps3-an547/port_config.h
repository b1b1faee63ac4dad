#include "../cmsdk/mps.h"

#define PORT_TARGET "mps3-an547"
#define PORT_TIMER_HZ 32000000
#define PORT_MODEL_BYTES 262144
#define PORT_UART 0x59303000u
