#include "../avr/atmega.h"

#define PORT_TARGET "atmega328p"
#define PORT_BUFFER_BYTES 128
