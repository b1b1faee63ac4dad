/* A line for test programs: standard input and output. At the end of the input, the program ends. */
#include "port.h"

#include <stdio.h>
#include <stdlib.h>

void port_init(void)
{
}

uint8_t port_read_byte(void)
{
    const int byte = getchar();
    if (byte == EOF) {
        exit(0);
    }
    return (uint8_t)byte;
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    fwrite(bytes, 1, n, stdout);
}

uint32_t port_ticks(void)
{
    return 0;
}
