/* valve: a log of raw inputs for replay, exported by quantgru. Include it only where a log is wanted.
 *
 *     static valve_log recent;
 *
 *     valve_log_start(&recent);                       with each valve_reset
 *     valve_log_step(&recent, &state, inputs);        just before each valve_step
 *     valve_log_send(&recent, &state, put, context);  any time after a step
 *
 * recent.window.clipped counts clipped inputs. `quantgru simulate --raw` reads what was sent.
 */
#ifndef VALVE_LOG_H
#define VALVE_LOG_H

#include "valve.h"
#include "quantgru_log.h"

/* The most steps of a window, 4 bytes each. Define it before this header to change it. */
#ifndef VALVE_LOG_STEPS
#define VALVE_LOG_STEPS 64
#endif
#if VALVE_LOG_STEPS < 2 || VALVE_LOG_STEPS > 65534 || VALVE_LOG_STEPS % 2 != 0
#error "VALVE_LOG_STEPS: expected an even number, 2 ... 65534"
#endif

/* When full, it holds the last VALVE_LOG_STEPS / 2 + 1 ... VALVE_LOG_STEPS steps. It points into itself:
 * no copy of it works. */
typedef struct valve_log {
    qg_log window;
    int16_t inputs[VALVE_LOG_STEPS][VALVE_INPUTS];
    int16_t h[2][VALVE_UNITS];
    uint16_t residual[2][VALVE_UNITS];
} valve_log;

/* Empties the window: first of all, after each reset, and after anything else that wrote the state, except a step. */
static inline void valve_log_start(valve_log *log)
{
    log->window.inputs = log->inputs[0];
    log->window.h = log->h[0];
    log->window.residual = log->residual[0];
    log->window.half_steps = VALVE_LOG_STEPS / 2;
    qg_log_start(&log->window);
}

/* Adds a step, with the state before it, and counts clipped inputs. */
static inline void valve_log_step(valve_log *log, const valve_state *state,
                                  const int16_t inputs[VALVE_INPUTS])
{
    qg_log_step(&log->window, &valve_descriptor, inputs, state->h, state->residual);
}

/* Sends the window, byte after byte, as quantgru_log.h says; state is that after its last step. */
static inline void valve_log_send(const valve_log *log, const valve_state *state, qg_put *put,
                                  void *context)
{
    qg_log_send(&log->window, &valve_descriptor, state->h, state->residual, put, context);
}

#endif
