/* gesture: a log of raw inputs for replay, exported by quantgru. Include it only where a log is wanted.
 *
 *     static gesture_log recent;
 *
 *     gesture_log_start(&recent);                       with each gesture_reset
 *     gesture_log_step(&recent, &state, inputs);        just before each gesture_step
 *     gesture_log_send(&recent, &state, put, context);  any time after a step
 *
 * recent.window.clipped counts clipped inputs. `quantgru simulate --raw` reads what was sent.
 */
#ifndef GESTURE_LOG_H
#define GESTURE_LOG_H

#include "gesture.h"
#include "quantgru_log.h"

/* The most steps of a window, 6 bytes each. Define it before this header to change it. */
#ifndef GESTURE_LOG_STEPS
#define GESTURE_LOG_STEPS 64
#endif
#if GESTURE_LOG_STEPS < 2 || GESTURE_LOG_STEPS > 65534 || GESTURE_LOG_STEPS % 2 != 0
#error "GESTURE_LOG_STEPS: expected an even number, 2 ... 65534"
#endif

/* When full, it holds the last GESTURE_LOG_STEPS / 2 + 1 ... GESTURE_LOG_STEPS steps. It points into itself:
 * no copy of it works. */
typedef struct gesture_log {
    qg_log window;
    int16_t inputs[GESTURE_LOG_STEPS][GESTURE_INPUTS];
    int16_t h[2][GESTURE_UNITS];
    uint16_t residual[2][GESTURE_UNITS];
} gesture_log;

/* Empties the window: first of all, after each reset, and after anything else that wrote the state, except a step. */
static inline void gesture_log_start(gesture_log *log)
{
    log->window.inputs = log->inputs[0];
    log->window.h = log->h[0];
    log->window.residual = log->residual[0];
    log->window.half_steps = GESTURE_LOG_STEPS / 2;
    qg_log_start(&log->window);
}

/* Adds a step, with the state before it, and counts clipped inputs. */
static inline void gesture_log_step(gesture_log *log, const gesture_state *state,
                                    const int16_t inputs[GESTURE_INPUTS])
{
    qg_log_step(&log->window, &gesture_descriptor, inputs, state->h, state->residual);
}

/* Sends the window, byte after byte, as quantgru_log.h says; state is that after its last step. */
static inline void gesture_log_send(const gesture_log *log, const gesture_state *state, qg_put *put,
                                    void *context)
{
    qg_log_send(&log->window, &gesture_descriptor, state->h, state->residual, put, context);
}

#endif
