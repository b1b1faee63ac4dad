#include "systick.h"

#include "port.h"

typedef struct systick {
    volatile uint32_t control;
    volatile uint32_t reload;
    volatile uint32_t value; /* counts down */
} systick;

#define SYSTICK ((systick *)0xe000e010u)

enum { ENABLE = 1, CORE_CLOCK = 4, MASK = 0xffffff };

static uint32_t last;
static uint32_t ticks;

void systick_init(void)
{
    SYSTICK->reload = MASK;
    SYSTICK->value = 0;
    SYSTICK->control = ENABLE | CORE_CLOCK;
}

/* SysTick has 24 bits. The difference of two calls is right if less than 2^24 ticks lie between them: a step may take
 * 16 million cycles. */
uint32_t port_ticks(void)
{
    const uint32_t now = SYSTICK->value;
    ticks += (last - now) & MASK;
    last = now;
    return ticks;
}
