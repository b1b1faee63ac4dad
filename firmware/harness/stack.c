#include "stack.h"

#include "port.h"

#ifdef PORT_STACK_LOWEST

enum { PAINT = 0xa5 };

/* Not inlined, for its caller's variables lie above its own frame. */
__attribute__((noinline)) void stack_paint(void)
{
    volatile uint8_t *const here = __builtin_frame_address(0); /* this function keeps nothing below */
    for (volatile uint8_t *byte = PORT_STACK_LOWEST; byte < here - 32; ++byte) {
        *byte = PAINT;
    }
}

uint32_t stack_bytes(void)
{
    return (uint32_t)((uintptr_t)PORT_STACK_END - (uintptr_t)PORT_STACK_LOWEST);
}

uint32_t stack_used_bytes(void)
{
    const uint8_t *byte = PORT_STACK_LOWEST;
    while (byte < PORT_STACK_END && *byte == PAINT) {
        ++byte;
    }
    return (uint32_t)((uintptr_t)PORT_STACK_END - (uintptr_t)byte);
}

#else

void stack_paint(void)
{
}

uint32_t stack_bytes(void)
{
    return 0;
}

uint32_t stack_used_bytes(void)
{
    return 0;
}

#endif
