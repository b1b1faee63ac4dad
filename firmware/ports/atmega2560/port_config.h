#include "../avr/atmega.h"

#define PORT_TARGET "atmega2560"
#define PORT_BUFFER_BYTES 512
