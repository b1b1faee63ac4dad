/* Models that run step by step: inputs from the line or from a generator, results one by one or digested. */
#include "work.h"

#if HELD_STEPS == 0

enum { ARRAY_U = 0, ARRAY_R = 1, ARRAY_N = 2, ARRAY_H = 3, ARRAY_RESIDUAL = 4, N_ARRAYS = 5 };

enum { SEED_BYTES = 12, DIGEST_BYTES = 24, READ_HEAD_BYTES = 4, TIME_BYTES = 4, MOST_INPUT_SHIFT = 15 };

/* What the steps of one request come to. */
typedef struct summary {
    uint32_t digest; /* CRC-32 of their check values */
    uint32_t least;  /* ticks of a step */
    uint32_t most;
    uint32_t total[2]; /* low word first */
} summary;

/* One step on held_x: ticks of its recurrent part, and its check value. */
typedef struct result {
    uint32_t ticks;
    uint32_t check;
    const int16_t *out;
} result;

static result run_step(held_model *model)
{
    result step;
    const uint32_t start = port_ticks();
    held_step(model);
    step.ticks = port_ticks() - start;
    step.out = held_output(model);
    step.check = qg_step_check(held_descriptor(model), held_h(model), held_residual(model), step.out, 0);
    return step;
}

void work_try(held_model *model)
{
    memset(held_x(model), 0, held_descriptor(model)->n_inputs * sizeof(int16_t));
    (void)run_step(model);
}

static const uint8_t *take_inputs(held_model *model, const uint8_t *in)
{
    int16_t *const x = held_x(model);
    const uint16_t n_inputs = held_descriptor(model)->n_inputs;
    for (uint16_t i = 0; i < n_inputs; ++i) {
        x[i] = (int16_t)get_u16(in);
        in += 2;
    }
    return in;
}

static uint16_t minimum(uint32_t a, uint32_t b)
{
    return (uint16_t)(a < b ? a : b);
}

/* The most steps whose inputs the request buffer holds. */
static uint16_t most_inputs(const qg_model *model)
{
    return (uint16_t)((HARNESS_PAYLOAD_ROOM - HARNESS_STEP_HEAD_BYTES) / (2u * (uint32_t)model->n_inputs));
}

static uint16_t most_records(const qg_model *model)
{
    return (uint16_t)((HARNESS_PAYLOAD_ROOM - HARNESS_STEP_HEAD_BYTES) /
                      (HARNESS_STEP_RECORD_BYTES + 2u * (uint32_t)model->n_outputs));
}

static verdict check_inputs(const qg_model *model, const request *asked, uint16_t most_steps)
{
    if (asked->payload_bytes < HARNESS_STEP_HEAD_BYTES) {
        return refuse(REFUSED_LENGTH, HARNESS_STEP_HEAD_BYTES);
    }
    const uint16_t n_steps = get_u16(asked->payload);
    if (n_steps == 0 || n_steps > most_steps) {
        return refuse(REFUSED_ARGUMENT, most_steps);
    }
    if (get_u16(asked->payload + 2) != 0) {
        return refuse(REFUSED_ARGUMENT, 0);
    }
    const uint32_t expected = HARNESS_STEP_HEAD_BYTES + n_steps * (2u * (uint32_t)model->n_inputs); /* <= buffer */
    return asked->payload_bytes == expected ? accept() : refuse(REFUSED_LENGTH, expected);
}

static verdict steps_check(const harness *self, const request *asked)
{
    const qg_model *const model = held_descriptor(&self->model);
    return check_inputs(model, asked, minimum(most_inputs(model), most_records(model)));
}

static verdict digest_check(const harness *self, const request *asked)
{
    const qg_model *const model = held_descriptor(&self->model);
    return check_inputs(model, asked, most_inputs(model));
}

static verdict seed_check(const request *asked)
{
    if (asked->payload_bytes != SEED_BYTES) {
        return refuse(REFUSED_LENGTH, SEED_BYTES);
    }
    if (get_u16(asked->payload) == 0) {
        return refuse(REFUSED_ARGUMENT, UINT16_MAX);
    }
    if (asked->payload[2] > MOST_INPUT_SHIFT) {
        return refuse(REFUSED_ARGUMENT, MOST_INPUT_SHIFT);
    }
    return asked->payload[3] == 0 ? accept() : refuse(REFUSED_ARGUMENT, 0);
}

static uint16_t steps_execute(harness *self, const request *asked, uint8_t *payload)
{
    const uint16_t n_steps = get_u16(asked->payload);
    const uint16_t n_outputs = held_descriptor(&self->model)->n_outputs;
    const uint8_t *in = asked->payload + HARNESS_STEP_HEAD_BYTES;
    uint8_t *record = payload + HARNESS_STEP_HEAD_BYTES;
    put_u16(payload, n_steps);
    put_u16(payload + 2, 0);
    for (uint16_t n = 0; n < n_steps; ++n) {
        in = take_inputs(&self->model, in);
        const result step = run_step(&self->model);
        put_u32(record, step.ticks);
        put_u32(record + 4, step.check);
        record += HARNESS_STEP_RECORD_BYTES;
        for (uint16_t i = 0; i < n_outputs; ++i) {
            put_u16(record, (uint16_t)step.out[i]);
            record += 2;
        }
    }
    return (uint16_t)(record - payload);
}

static void digest_step(summary *steps, const result *step)
{
    uint8_t check[4];
    put_u32(check, step->check);
    steps->digest = qg_crc32(steps->digest, check, sizeof check);
    steps->least = step->ticks < steps->least ? step->ticks : steps->least;
    steps->most = step->ticks > steps->most ? step->ticks : steps->most;
    steps->total[0] += step->ticks;
    steps->total[1] += steps->total[0] < step->ticks; /* the carry */
}

static uint16_t put_summary(uint8_t *payload, uint16_t n_steps, const summary *steps)
{
    put_u16(payload, n_steps);
    put_u16(payload + 2, 0);
    put_u32(payload + 4, steps->digest);
    put_u32(payload + 8, steps->least);
    put_u32(payload + 12, steps->most);
    put_u32(payload + 16, steps->total[0]);
    put_u32(payload + 20, steps->total[1]);
    return DIGEST_BYTES;
}

static const summary no_steps = {0, UINT32_MAX, 0, {0, 0}};

static uint16_t digest_execute(harness *self, const request *asked, uint8_t *payload)
{
    const uint16_t n_steps = get_u16(asked->payload);
    const uint8_t *in = asked->payload + HARNESS_STEP_HEAD_BYTES;
    summary steps = no_steps;
    for (uint16_t n = 0; n < n_steps; ++n) {
        in = take_inputs(&self->model, in);
        const result step = run_step(&self->model);
        digest_step(&steps, &step);
    }
    return put_summary(payload, n_steps, &steps);
}

/* Number `index` of the generator's values: a multiple of 2^32 / 1.618..., mixed as MurmurHash3 ends (PROTOCOL.md). */
static int16_t generated(uint32_t seed, uint32_t index, uint8_t shift)
{
    uint32_t z = seed + (index + 1) * 0x9e3779b9u;
    z = (z ^ z >> 16) * 0x85ebca6bu;
    z = (z ^ z >> 13) * 0xc2b2ae35u;
    return (int16_t)((int16_t)(z >> 16) >> shift);
}

static uint16_t seed_execute(harness *self, const request *asked, uint8_t *payload)
{
    const uint16_t n_steps = get_u16(asked->payload);
    const uint32_t seed = get_u32(asked->payload + 4);
    uint32_t index = get_u32(asked->payload + 8);
    const uint16_t n_inputs = held_descriptor(&self->model)->n_inputs;
    int16_t *const x = held_x(&self->model);
    summary steps = no_steps;
    for (uint16_t n = 0; n < n_steps; ++n) {
        for (uint16_t i = 0; i < n_inputs; ++i) {
            x[i] = generated(seed, index++, asked->payload[2]);
        }
        const result step = run_step(&self->model);
        digest_step(&steps, &step);
    }
    return put_summary(payload, n_steps, &steps);
}

static verdict read_check(const harness *self, const request *asked)
{
    const uint16_t n_units = held_descriptor(&self->model)->n_units;
    if (asked->payload_bytes != READ_HEAD_BYTES) {
        return refuse(REFUSED_LENGTH, READ_HEAD_BYTES);
    }
    if (asked->payload[0] >= N_ARRAYS) {
        return refuse(REFUSED_ARGUMENT, N_ARRAYS - 1);
    }
    if (asked->payload[1] != 0) {
        return refuse(REFUSED_ARGUMENT, 0);
    }
    return get_u16(asked->payload + 2) < n_units ? accept() : refuse(REFUSED_ARGUMENT, n_units - 1u);
}

/* Value i of an array as 16 bits. */
static uint16_t array_value(held_model *model, uint8_t array, uint16_t i)
{
    const qg_gates gates = held_gates(model);
    switch (array) {
    case ARRAY_U:
        return gates.u[i];
    case ARRAY_R:
        return gates.r[i];
    case ARRAY_N:
        return (uint16_t)gates.n[i];
    case ARRAY_H:
        return (uint16_t)held_h(model)[i];
    default:
        return held_residual(model)[i];
    }
}

static uint16_t read_execute(harness *self, const request *asked, uint8_t *payload)
{
    const uint16_t first = get_u16(asked->payload + 2);
    const uint16_t left = (uint16_t)(held_descriptor(&self->model)->n_units - first);
    const uint16_t room = (HARNESS_PAYLOAD_ROOM - READ_HEAD_BYTES) / 2;
    const uint16_t n = left < room ? left : room;
    memcpy(payload, asked->payload, READ_HEAD_BYTES);
    for (uint16_t i = 0; i < n; ++i) {
        put_u16(payload + READ_HEAD_BYTES + 2 * i, array_value(&self->model, asked->payload[0], (uint16_t)(first + i)));
    }
    return (uint16_t)(READ_HEAD_BYTES + 2 * n);
}

static uint16_t time_execute(held_model *model, uint8_t *payload)
{
    const uint32_t start = port_ticks();
    (void)held_output(model);
    put_u32(payload, port_ticks() - start);
    return TIME_BYTES;
}

uint8_t work_knows(uint8_t type)
{
    return (type >= TYPE_RESET && type <= TYPE_SEED) || type == TYPE_TIME;
}

verdict work_check(const harness *self, const request *asked)
{
    switch (asked->type) {
    case TYPE_RESET:
    case TYPE_TIME:
        return check_length(asked, 0);
    case TYPE_STEP:
        return steps_check(self, asked);
    case TYPE_READ:
        return read_check(self, asked);
    case TYPE_DIGEST:
        return digest_check(self, asked);
    default:
        return seed_check(asked);
    }
}

uint16_t work_execute(harness *self, const request *asked, uint8_t *payload)
{
    switch (asked->type) {
    case TYPE_STEP:
        return steps_execute(self, asked, payload);
    case TYPE_READ:
        return read_execute(self, asked, payload);
    case TYPE_DIGEST:
        return digest_execute(self, asked, payload);
    case TYPE_SEED:
        return seed_execute(self, asked, payload);
    case TYPE_TIME:
        return time_execute(&self->model, payload);
    default:
        held_reset(&self->model);
        return 0;
    }
}

#endif
