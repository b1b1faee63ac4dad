/* Time from the timer that Cortex-M cores bring with them. */
#ifndef SYSTICK_H
#define SYSTICK_H

/* Starts SysTick at the clock of the core; port_ticks reads it. */
void systick_init(void);

#endif
