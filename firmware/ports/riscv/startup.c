/* Start-up of the RISC-V boards: one core, no operating system, no C library. */
#include <stdint.h>
#include <string.h>

extern uint32_t bss_start[], bss_end[];

int main(void);
void start(void);
void begin(void);

/* A fault stops here; the harness on the other end of the line runs into its deadline and says so. */
__attribute__((aligned(4))) static void stop(void)
{
    for (;;) {
    }
}

/* First in the program, without a stack yet. */
__attribute__((naked, section(".start"))) void start(void)
{
    __asm__ volatile(".option push\n\t"
                     ".option norelax\n\t"
                     "la gp, __global_pointer$\n\t"
                     ".option pop\n\t"
                     "la sp, stack_top\n\t"
                     "j begin");
}

__attribute__((used)) void begin(void)
{
    __asm__ volatile("csrw mtvec, %0" ::"r"(stop));
    memset(bss_start, 0, (uintptr_t)bss_end - (uintptr_t)bss_start);
    (void)main();
    stop();
}
