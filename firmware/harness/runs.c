/* Models that need whole sequences: the inputs come in parts, are run, and the outputs are read in parts. */
#include "work.h"

#if HELD_STEPS > 0

enum { HEAD_BYTES = 4, RUN_REPLY_BYTES = 12 };

/* Of INPUTS and OUTPUTS: n_steps from step `first` on. */
typedef struct part {
    uint16_t n_steps;
    uint16_t first;
} part;

static part part_of(const request *asked)
{
    const part asked_for = {get_u16(asked->payload), get_u16(asked->payload + 2)};
    return asked_for;
}

/* A part of all_steps that lie in RAM, in a frame with n_values of each step. */
static verdict check_part(const request *asked, uint16_t all_steps, uint16_t n_values)
{
    const part wanted = part_of(asked);
    const uint32_t fit = (HARNESS_PAYLOAD_ROOM - HEAD_BYTES) / (2u * (uint32_t)n_values);
    const uint32_t most_steps = fit < all_steps ? fit : all_steps;
    if (wanted.n_steps == 0 || wanted.n_steps > most_steps) {
        return refuse(REFUSED_ARGUMENT, most_steps);
    }
    const uint32_t last_first = (uint32_t)all_steps - wanted.n_steps;
    return wanted.first <= last_first ? accept() : refuse(REFUSED_ARGUMENT, last_first);
}

static verdict check_inputs(const harness *self, const request *asked)
{
    const uint16_t n_inputs = held_descriptor(&self->model)->n_inputs;
    if (asked->payload_bytes < HEAD_BYTES) {
        return refuse(REFUSED_LENGTH, HEAD_BYTES);
    }
    const verdict found = check_part(asked, HELD_STEPS, n_inputs);
    if (found.code != ACCEPTED) {
        return found;
    }
    return check_length(asked, (uint16_t)(HEAD_BYTES + part_of(asked).n_steps * (2u * (uint32_t)n_inputs)));
}

static verdict check_run(const request *asked)
{
    const uint32_t n_steps = get_u16(asked->payload); /* of 16 bits, it would never exceed some limits: a warning */
    if (n_steps == 0 || n_steps > HELD_STEPS) {
        return refuse(REFUSED_ARGUMENT, HELD_STEPS);
    }
    return get_u16(asked->payload + 2) == 0 ? accept() : refuse(REFUSED_ARGUMENT, 0);
}

uint8_t work_knows(uint8_t type)
{
    return type == TYPE_INPUTS || type == TYPE_RUN || type == TYPE_OUTPUTS;
}

verdict work_check(const harness *self, const request *asked)
{
    if (asked->type == TYPE_INPUTS) {
        return check_inputs(self, asked);
    }
    if (asked->payload_bytes != HEAD_BYTES) {
        return refuse(REFUSED_LENGTH, HEAD_BYTES);
    }
    if (asked->type == TYPE_RUN) {
        return check_run(asked);
    }
    return check_part(asked, held_output_steps(&self->model), held_descriptor(&self->model)->n_outputs);
}

static uint16_t take_inputs(held_model *model, const request *asked)
{
    const part wanted = part_of(asked);
    const uint16_t n_inputs = held_descriptor(model)->n_inputs;
    const uint8_t *const end = asked->payload + asked->payload_bytes;
    int16_t *x = held_inputs(model) + (size_t)wanted.first * n_inputs;
    for (const uint8_t *in = asked->payload + HEAD_BYTES; in != end; in += 2) {
        *x++ = (int16_t)get_u16(in);
    }
    return 0;
}

static uint16_t put_outputs(const held_model *model, const request *asked, uint8_t *payload)
{
    const part wanted = part_of(asked);
    const uint16_t n_outputs = held_descriptor(model)->n_outputs;
    const int16_t *const first = held_outputs(model) + (size_t)wanted.first * n_outputs;
    const size_t n_values = (size_t)wanted.n_steps * n_outputs;
    memcpy(payload, asked->payload, HEAD_BYTES);
    for (size_t i = 0; i < n_values; ++i) {
        put_u16(payload + HEAD_BYTES + 2 * i, (uint16_t)first[i]);
    }
    return (uint16_t)(HEAD_BYTES + 2 * n_values);
}

/* The check value runs over the outputs step by step: there may be more of them than 16 bits count. */
static uint32_t check_of_run(const held_model *model)
{
    const uint16_t n_outputs = held_descriptor(model)->n_outputs;
    const int16_t *out = held_outputs(model);
    uint32_t check = 0;
    for (uint16_t step = 0; step < held_output_steps(model); ++step) {
        check = qg_check_values(check, out, n_outputs);
        out += n_outputs;
    }
    return check;
}

static uint16_t execute_run(held_model *model, const request *asked, uint8_t *payload)
{
    const uint32_t start = port_ticks();
    held_run(model, get_u16(asked->payload));
    const uint32_t ticks = port_ticks() - start;
    memcpy(payload, asked->payload, HEAD_BYTES);
    put_u32(payload + 4, ticks);
    put_u32(payload + 8, check_of_run(model));
    return RUN_REPLY_BYTES;
}

uint16_t work_execute(harness *self, const request *asked, uint8_t *payload)
{
    switch (asked->type) {
    case TYPE_INPUTS:
        return take_inputs(&self->model, asked);
    case TYPE_RUN:
        return execute_run(&self->model, asked, payload);
    default:
        return put_outputs(&self->model, asked, payload);
    }
}

/* On what the inputs are: no value of them makes the stack deeper. */
void work_try(held_model *model)
{
    held_run(model, 1);
    (void)check_of_run(model);
}

#endif
