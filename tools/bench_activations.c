/* How many timer ticks sigmoid and tanh take: for bench_firmware.py. Answers any byte with three numbers. */
#include "port.h"
#include "quantgru.h"

#define VALUES 4096

static volatile int32_t sink;

static void send(uint32_t value)
{
    const uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
    port_write(bytes, sizeof bytes);
}

/* Pre-activations from -16 to 16, s32f14. */
#define TIME(expression)                                                                                               \
    do {                                                                                                               \
        const uint32_t start = port_ticks();                                                                           \
        for (int32_t i = 0, a = -((int32_t)16 << 14); i < VALUES; ++i, a += (32 << 14) / VALUES) {                     \
            sink = (expression);                                                                                       \
        }                                                                                                              \
        send(port_ticks() - start);                                                                                    \
    } while (0)

int main(void)
{
    port_init();
    for (;;) {
        (void)port_read_byte();
        TIME(a);
        TIME(qg_sigmoid(a));
        TIME(qg_tanh(a));
    }
}
