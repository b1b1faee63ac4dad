#include "requests.h"

#include "model_digest.h"
#include "stack.h"
#include "work.h"

enum { TARGET_BYTES = 24, STACK_BYTES = 8, LOAD_BYTES = 4, WRITE_HEAD_BYTES = 4 };

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
        work_try(&self->model);
        held_reset(&self->model);
    }
    put_stack(payload + 80);
    put_u16(payload + 88, HELD_STEPS);
    return HARNESS_DESCRIPTION_BYTES;
}

/* A step needs as many inputs in a request and outputs in a reply. */
static uint16_t most_values(void)
{
    return (HARNESS_PAYLOAD_ROOM - HARNESS_STEP_HEAD_BYTES - HARNESS_STEP_RECORD_BYTES) / 2;
}

verdict check_length(const request *asked, uint16_t expected)
{
    return asked->payload_bytes == expected ? accept() : refuse(REFUSED_LENGTH, expected);
}

/* A model that is compiled in cannot be written. */
static uint8_t is_known(const harness *self, uint8_t type)
{
    switch (type) {
    case TYPE_HELLO:
    case TYPE_STACK:
        return 1;
    case TYPE_WRITE:
    case TYPE_LOAD:
        return held_room(&self->model) != 0;
    default:
        return work_knows(type);
    }
}

/* The largest type that this firmware knows. */
static uint8_t last_type(const harness *self)
{
    uint8_t type = TYPE_TIME;
    while (!is_known(self, type)) {
        --type;
    }
    return type;
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

verdict request_check(const harness *self, const request *asked)
{
    if (!is_known(self, asked->type)) {
        return refuse(REFUSED_TYPE, last_type(self));
    }
    switch (asked->type) {
    case TYPE_HELLO:
    case TYPE_STACK:
        return check_length(asked, 0);
    case TYPE_WRITE:
        return check_write(self, asked);
    case TYPE_LOAD:
        return check_load(self, asked);
    default:
        return held_descriptor(&self->model) != NULL ? work_check(self, asked) : refuse(REFUSED_NO_MODEL, 0);
    }
}

uint16_t request_execute(harness *self, const request *asked, uint8_t *payload)
{
    switch (asked->type) {
    case TYPE_HELLO:
        return describe(self, payload);
    case TYPE_STACK:
        return put_stack(payload);
    case TYPE_WRITE:
        held_write(&self->model, get_u32(asked->payload), asked->payload + WRITE_HEAD_BYTES,
                   (uint16_t)(asked->payload_bytes - WRITE_HEAD_BYTES));
        return 0;
    case TYPE_LOAD:
        return execute_load(self, asked, payload);
    default:
        return work_execute(self, asked, payload);
    }
}
