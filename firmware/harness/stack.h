/* How deep the stack goes: it is painted, and later looked at. For boards whose port_config.h names its ends. */
#ifndef STACK_H
#define STACK_H

#include <stdint.h>

/* Paints what lies below the caller. */
void stack_paint(void);

/* Its size, and how much of it has ever been used; 0 where the ends are not known. */
uint32_t stack_bytes(void);
uint32_t stack_used_bytes(void);

#endif
