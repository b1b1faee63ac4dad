#include "systick.h"

#include "port.h"

typedef struct systick {
    volatile uint32_t control;
    volatile uint32_t reload;
    volatile uint32_t value; /* counts down; its interrupt comes at 0 */
} systick;

#define SYSTICK ((systick *)0xe000e010u)
#define INTERRUPT_STATE (*(volatile uint32_t *)0xe000ed04u)

enum { ENABLE = 1, INTERRUPT = 2, CORE_CLOCK = 4, WAITS = 1 << 26, BITS = 24, MASK = 0xffffff };

static volatile uint32_t wraps;

void systick_init(void)
{
    SYSTICK->reload = MASK;
    SYSTICK->value = 0;
    SYSTICK->control = ENABLE | INTERRUPT | CORE_CLOCK;
}

void SysTick_Handler(void)
{
    ++wraps;
}

/* SysTick has 24 bits, which a long sequence runs through many times. */
uint32_t port_ticks(void)
{
    __asm__ volatile("cpsid i" ::: "memory");
    uint32_t value = SYSTICK->value;
    uint32_t high = wraps;
    if (value == 0 || (INTERRUPT_STATE & WAITS) != 0) { /* wrapped, and its interrupt waits or is about to come */
        value = SYSTICK->value;
        ++high;
    }
    __asm__ volatile("cpsie i" ::: "memory");
    return (high << BITS) + ((0 - value) & MASK);
}
