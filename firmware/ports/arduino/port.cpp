/* The line and the timer of any board with an Arduino core. */
#include <Arduino.h>

extern "C" {
#include "port.h"
}

void port_init(void)
{
    Serial.begin(PORT_BAUD);
}

uint8_t port_read_byte(void)
{
    while (Serial.available() == 0) {
        yield();
    }
    return static_cast<uint8_t>(Serial.read());
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    Serial.write(bytes, n);
}

uint32_t port_ticks(void)
{
    return micros();
}
