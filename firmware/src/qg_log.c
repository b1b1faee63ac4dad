/* A window of raw inputs, with the states that its halves begin with. */
#include "quantgru_log.h"

#include <string.h>

static uint16_t most_steps(const qg_log *log)
{
    return (uint16_t)(2 * log->half_steps);
}

void qg_log_start(qg_log *log)
{
    log->next = 0;
    log->n_steps = 0;
    log->all_steps = 0;
}

/* Makes room for a half, and keeps the state that it begins with. */
static void begin_half(qg_log *log, uint16_t n_units, const int16_t *h, const uint16_t *residual)
{
    const size_t slot = log->next == 0 ? 0 : n_units;
    if (log->n_steps == most_steps(log)) {
        log->n_steps = log->half_steps;
    }
    memcpy(log->h + slot, h, n_units * sizeof *h);
    memcpy(log->residual + slot, residual, n_units * sizeof *residual);
}

void qg_log_step(qg_log *log, const qg_model *model, const int16_t *x, const int16_t *h, const uint16_t *residual)
{
    const uint16_t n_clipped = qg_clipped(model, x);
    if (log->next == most_steps(log)) {
        log->next = 0;
    }
    if (log->next == 0 || log->next == log->half_steps) {
        begin_half(log, model->n_units, h, residual);
    }
    memcpy(log->inputs + (size_t)log->next * model->n_inputs, x, model->n_inputs * sizeof *x);
    ++log->next;
    ++log->n_steps;
    ++log->all_steps;
    log->clipped = n_clipped < UINT32_MAX - log->clipped ? log->clipped + n_clipped : UINT32_MAX;
}

typedef struct sender {
    qg_put *put;
    void *context;
    uint32_t crc;
} sender;

static void send_bytes(sender *to, const uint8_t *bytes, size_t n)
{
    to->crc = qg_crc32(to->crc, bytes, n);
    for (size_t i = 0; i < n; ++i) {
        to->put(to->context, bytes[i]);
    }
}

static void send_u16(sender *to, uint16_t value)
{
    const uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};
    send_bytes(to, bytes, sizeof bytes);
}

static void send_u32(sender *to, uint32_t value)
{
    send_u16(to, (uint16_t)value);
    send_u16(to, (uint16_t)(value >> 16));
}

/* 16-bit values, signed or not. */
static void send_values(sender *to, const uint16_t *values, size_t n)
{
    for (size_t i = 0; i < n; ++i) {
        send_u16(to, values[i]);
    }
}

static void send_head(sender *to, const qg_log *log, const qg_model *model)
{
    static const uint8_t format[6] = {'q', 'g', 'l', 'o', 'g', 1};
    send_bytes(to, format, sizeof format);
    send_u16(to, model->n_inputs);
    send_u16(to, model->n_units);
    send_u16(to, log->n_steps);
    send_u32(to, log->all_steps);
    send_u32(to, log->clipped);
    for (uint8_t i = 0; i < QG_DIGEST_BYTES; ++i) {
        const uint8_t byte = QG_READ_U8(model->digest + i);
        send_bytes(to, &byte, 1);
    }
}

void qg_log_send(const qg_log *log, const qg_model *model, const int16_t *h, const uint16_t *residual, qg_put *put,
                 void *context)
{
    const uint16_t n_units = model->n_units;
    uint16_t row = (uint16_t)(log->next - log->n_steps); /* the oldest: where a half begins */
    if (log->next < log->n_steps) {
        row = (uint16_t)(row + most_steps(log));
    }
    const size_t slot = row == 0 ? 0 : n_units;
    sender to = {put, context, 0};
    send_head(&to, log, model);
    send_values(&to, (const uint16_t *)log->h + slot, n_units);
    send_values(&to, log->residual + slot, n_units);
    for (uint16_t step = 0; step < log->n_steps; ++step) {
        send_values(&to, (const uint16_t *)log->inputs + (size_t)row * model->n_inputs, model->n_inputs);
        row = row + 1 == most_steps(log) ? 0 : (uint16_t)(row + 1);
    }
    send_u32(&to, qg_check_values(qg_check_values(0, h, n_units), residual, n_units));
    send_u32(&to, to.crc);
}
