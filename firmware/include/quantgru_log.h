/* What a device sees in the field, kept for the desk: a count of clipped inputs, and a window of the last raw inputs
 * with the state that it begins with, which `quantgru simulate --raw` replays to the same integers. For models that run
 * step by step. Costs nothing where it is not called; exported code has a NAME_log of the right sizes in NAME_log.h.
 */
#ifndef QUANTGRU_LOG_H
#define QUANTGRU_LOG_H

#include "quantgru.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How many of x [n_inputs] stand at a limit of the int16_t: a value that saturated cannot be told from one that is
 * exactly there, so both count as clipped. Of an embedding: 1 if x is no token. */
uint16_t qg_clipped(const qg_model *model, const int16_t *x);

/* A window of steps, in arrays of the caller. Only where a half begins is the state kept: when both halves are
 * full, the older one makes room, and from then on the window holds the last half_steps + 1 ... 2 half_steps steps. */
typedef struct qg_log {
    int16_t *inputs;     /* [2 half_steps][n_inputs] */
    int16_t *h;          /* [2][n_units], before the first step of each half */
    uint16_t *residual;  /* [2][n_units] */
    uint16_t half_steps; /* 1 ... 32767 */
    uint16_t next;       /* row of the next step */
    uint16_t n_steps;    /* in the window */
    uint32_t all_steps;  /* since qg_log_start, modulo 2^32 */
    uint32_t clipped;    /* inputs, up to 2^32 - 1; nothing here sets it back to 0 */
} qg_log;

/* Takes a byte of a record. `context` is what the caller of qg_log_send gave. */
typedef void qg_put(void *context, uint8_t byte);

/* Empties the window. Call it first, and whenever something else than a step has written the state, as a reset does: a
 * window that reached over that could not be replayed. */
void qg_log_start(qg_log *log);

/* Adds a step: call it just before the step, with its x [n_inputs] and the state before it. */
void qg_log_step(qg_log *log, const qg_model *model, const int16_t *x, const int16_t *h, const uint16_t *residual);

/* Sends the window as a record, byte after byte; h and residual are the state after its last step. 16 and 32-bit values
 * are little-endian:
 *
 *   0   "qglog", and the byte 1: the format
 *   6   n_inputs, n_units, n_steps of the window, 16 bits each
 *   12  all_steps and clipped, 32 bits each
 *   20  digest of the model [QG_DIGEST_BYTES]
 *   52  h [n_units] and residual [n_units] before the first step, inputs [n_steps][n_inputs], 16 bits each
 *   ... CRC-32 of h [n_units] and residual [n_units] after the last step [R16]
 *   ... CRC-32 of all bytes before it */
void qg_log_send(const qg_log *log, const qg_model *model, const int16_t *h, const uint16_t *residual, qg_put *put,
                 void *context);

#ifdef __cplusplus
}
#endif

#endif
