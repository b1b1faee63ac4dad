#include "requests.h"

#include "model_digest.h"
#include "stack.h"
#include "steps.h"

enum { ARRAY_U = 0, ARRAY_R = 1, ARRAY_N = 2, ARRAY_H = 3, ARRAY_RESIDUAL = 4, N_ARRAYS = 5 };

enum { TARGET_BYTES = 24, READ_HEAD_BYTES = 4, STACK_BYTES = 8, LOAD_BYTES = 4, WRITE_HEAD_BYTES = 4 };

typedef char harness_target_name_is_too_long[sizeof PORT_TARGET - 1 <= TARGET_BYTES ? 1 : -1];

verdict accept(void)
{
    const verdict accepted = {ACCEPTED, 0};
    return accepted;
}

verdict refuse(uint8_t code, uint32_t expected)
{
    const verdict refused = {code, expected};
    return refused;
}

static uint16_t put_stack(uint8_t *payload)
{
    put_u32(payload, stack_bytes());
    put_u32(payload + 4, stack_used_bytes());
    return STACK_BYTES;
}

static void put_model(uint8_t *payload, const qg_model *model)
{
    put_u16(payload + 12, model->n_inputs);
    put_u16(payload + 14, model->n_outputs);
    put_u16(payload + 16, model->n_units);
    model_digest(model, payload + 20);
}

/* What the board is and what it holds. One step is tried before the stack is looked at. */
static uint16_t describe(harness *self, uint8_t *payload)
{
    const qg_model *const model = held_descriptor(&self->model);
    memset(payload, 0, HARNESS_DESCRIPTION_BYTES);
    payload[0] = QG_SPEC_MAJOR;
    payload[1] = QG_SPEC_MINOR;
    payload[2] = PORT_REPLIES;
    payload[3] = PORT_TIMER_KIND;
    put_u32(payload + 4, PORT_TIMER_HZ);
    put_u16(payload + 8, HARNESS_BUFFER_BYTES);
    put_u16(payload + 10, HARNESS_BUFFER_BYTES);
    put_u16(payload + 18, PORT_RECEIVE_BYTES);
    memcpy(payload + 52, PORT_TARGET, sizeof PORT_TARGET - 1);
    put_u32(payload + 76, held_room(&self->model));
    if (model != NULL) {
        put_model(payload, model);
        steps_try(&self->model);
        held_reset(&self->model);
    }
    put_stack(payload + 80);
    return HARNESS_DESCRIPTION_BYTES;
}

/* A step needs as many inputs in a request and outputs in a reply. */
static uint16_t most_values(void)
{
    return (HARNESS_PAYLOAD_ROOM - HARNESS_STEP_HEAD_BYTES - HARNESS_STEP_RECORD_BYTES) / 2;
}

static verdict check_length(const request *asked, uint16_t expected)
{
    return asked->payload_bytes == expected ? accept() : refuse(REFUSED_LENGTH, expected);
}

static verdict check_read(const harness *self, const request *asked)
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

static uint16_t execute_read(harness *self, const request *asked, uint8_t *payload)
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

/* The largest type that this firmware knows: a model that is compiled in cannot be written. */
static uint8_t last_type(const harness *self)
{
    return held_room(&self->model) == 0 ? TYPE_STACK : TYPE_LOAD;
}

static verdict check_write(const harness *self, const request *asked)
{
    const uint32_t room = held_room(&self->model);
    if (asked->payload_bytes <= WRITE_HEAD_BYTES) {
        return refuse(REFUSED_LENGTH, WRITE_HEAD_BYTES + 1);
    }
    const uint32_t n_bytes = asked->payload_bytes - (uint32_t)WRITE_HEAD_BYTES;
    if (n_bytes > room || get_u32(asked->payload) > room - n_bytes) {
        return refuse(REFUSED_ARGUMENT, n_bytes > room ? 0 : room - n_bytes);
    }
    return accept();
}

static verdict check_load(const harness *self, const request *asked)
{
    const uint32_t room = held_room(&self->model);
    if (asked->payload_bytes != LOAD_BYTES) {
        return refuse(REFUSED_LENGTH, LOAD_BYTES);
    }
    return get_u32(asked->payload) <= room ? accept() : refuse(REFUSED_ARGUMENT, room);
}

/* Loads what was written; the board describes itself with what it has then. */
static uint16_t execute_load(harness *self, const request *asked, uint8_t *payload)
{
    put_u32(payload, held_load(&self->model, get_u32(asked->payload), most_values()));
    return (uint16_t)(LOAD_BYTES + describe(self, payload + LOAD_BYTES));
}

/* Of the types that need a model. */
static verdict check_with_model(const harness *self, const request *asked)
{
    if (held_descriptor(&self->model) == NULL) {
        return refuse(REFUSED_NO_MODEL, 0);
    }
    switch (asked->type) {
    case TYPE_RESET:
        return check_length(asked, 0);
    case TYPE_STEP:
        return steps_check(self, asked);
    case TYPE_READ:
        return check_read(self, asked);
    case TYPE_DIGEST:
        return digest_check(self, asked);
    default:
        return seed_check(asked);
    }
}

verdict request_check(const harness *self, const request *asked)
{
    if (asked->type > last_type(self)) {
        return refuse(REFUSED_TYPE, last_type(self));
    }
    switch (asked->type) {
    case TYPE_HELLO:
    case TYPE_STACK:
        return check_length(asked, 0);
    case TYPE_RESET:
    case TYPE_STEP:
    case TYPE_READ:
    case TYPE_DIGEST:
    case TYPE_SEED:
        return check_with_model(self, asked);
    case TYPE_WRITE:
        return check_write(self, asked);
    case TYPE_LOAD:
        return check_load(self, asked);
    default:
        return refuse(REFUSED_TYPE, last_type(self));
    }
}

uint16_t request_execute(harness *self, const request *asked, uint8_t *payload)
{
    switch (asked->type) {
    case TYPE_HELLO:
        return describe(self, payload);
    case TYPE_RESET:
        held_reset(&self->model);
        return 0;
    case TYPE_STEP:
        return steps_execute(self, asked, payload);
    case TYPE_READ:
        return execute_read(self, asked, payload);
    case TYPE_DIGEST:
        return digest_execute(self, asked, payload);
    case TYPE_SEED:
        return seed_execute(self, asked, payload);
    case TYPE_WRITE:
        held_write(&self->model, get_u32(asked->payload), asked->payload + WRITE_HEAD_BYTES,
                   (uint16_t)(asked->payload_bytes - WRITE_HEAD_BYTES));
        return 0;
    case TYPE_LOAD:
        return execute_load(self, asked, payload);
    default:
        return put_stack(payload);
    }
}
