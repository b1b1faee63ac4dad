/* Vector table and start-up of any Cortex-M. */
#include <stdint.h>
#include <string.h>

extern uint32_t stack_top[], data_load[], data_start[], data_end[], bss_start[], bss_end[];

int main(void);
void reset_handler(void);

/* A fault stops here; the harness on the other end of the line runs into its deadline and says so. */
static void fault_handler(void)
{
    for (;;) {
    }
}

/* Of systick.c, where a board has it; by its name of CMSIS, so that other start-up code finds it, too. */
void SysTick_Handler(void) __attribute__((weak, alias("fault_handler")));

#define CPACR (*(volatile uint32_t *)0xe000ed88u)

void reset_handler(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    /* The compiler keeps integers in registers of the floating-point unit, too: it must be on before any other code. */
    CPACR |= 0xfu << 20;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    memcpy(data_start, data_load, (uintptr_t)data_end - (uintptr_t)data_start);
    memset(bss_start, 0, (uintptr_t)bss_end - (uintptr_t)bss_start);
    (void)main();
    fault_handler();
}

typedef union {
    uint32_t *stack;
    void (*handler)(void);
} vector;

__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    {.stack = stack_top},
    {.handler = reset_handler},
    {.handler = fault_handler},
    {.handler = fault_handler},
    {.handler = fault_handler},
    {.handler = fault_handler},
    {.handler = fault_handler},
    {.handler = fault_handler},
    {.handler = 0},
    {.handler = 0},
    {.handler = 0},
    {.handler = fault_handler},
    {.handler = fault_handler},
    {.handler = 0},
    {.handler = fault_handler},
    {.handler = SysTick_Handler},
};
