#include "harness.h"

#include "model_digest.h"

#include <string.h>

/* Buffer sizes and lengths are 16 bits on the wire. */
typedef char harness_buffer_is_too_large[(HARNESS_BUFFER_BYTES) <= 65535 ? 1 : -1];

enum { TYPE_HELLO = 1, TYPE_RESET = 2, TYPE_STEP = 3, TYPE_READ = 4, TYPE_REPLY = 0x80, TYPE_ERROR = 0xff };

enum {
    ACCEPTED = 0,
    REFUSED_VERSION = 1,
    REFUSED_NO_SESSION = 2,
    REFUSED_OTHER_SESSION = 3,
    REFUSED_SEQUENCE = 4,
    REFUSED_TYPE = 5,
    REFUSED_LENGTH = 6,
    REFUSED_ARGUMENT = 7
};

enum { ARRAY_U = 0, ARRAY_R = 1, ARRAY_N = 2, ARRAY_H = 3, ARRAY_RESIDUAL = 4, N_ARRAYS = 5 };

enum {
    CREDIT = 1, /* requests that may be on their way */
    TARGET_BYTES = 24,
    READ_HEAD_BYTES = 4,
    ERROR_BYTES = 8,
    PAYLOAD_ROOM = HARNESS_BUFFER_BYTES - FRAME_OVERHEAD_BYTES,
    STEPS_BY_REQUEST = (PAYLOAD_ROOM - HARNESS_STEP_HEAD_BYTES) / (2 * MODEL_INPUTS),
    STEPS_BY_REPLY = (PAYLOAD_ROOM - HARNESS_STEP_HEAD_BYTES) / HARNESS_STEP_RECORD_BYTES,
    MOST_STEPS = STEPS_BY_REQUEST < STEPS_BY_REPLY ? STEPS_BY_REQUEST : STEPS_BY_REPLY,
    MOST_READ_VALUES = (PAYLOAD_ROOM - READ_HEAD_BYTES) / 2
};

typedef char harness_target_name_is_too_long[sizeof PORT_TARGET - 1 <= TARGET_BYTES ? 1 : -1];

typedef struct request {
    uint32_t session;
    uint32_t crc;
    uint16_t sequence;
    uint16_t payload_bytes;
    const uint8_t *payload;
    uint8_t type;
} request;

/* Whether a request can be executed: ACCEPTED, or the code of the ERROR reply with what was expected. Whoever refuses
 * has changed nothing yet, neither the state nor the stored reply. */
typedef struct verdict {
    uint8_t code;
    uint32_t expected;
} verdict;

static const verdict accepted = {ACCEPTED, 0};

static verdict refuse(uint8_t code, uint32_t expected)
{
    const verdict refused = {code, expected};
    return refused;
}

static void put_header(uint8_t *frame, uint8_t type, const request *asked)
{
    frame[FRAME_VERSION_AT] = HARNESS_PROTOCOL_VERSION;
    frame[FRAME_TYPE_AT] = type;
    put_u32(frame + FRAME_SESSION_AT, asked->session);
    put_u16(frame + FRAME_SEQUENCE_AT, asked->sequence);
}

/* From a frame of its own: the stored reply must survive a refusal, for its request may be repeated. */
static void send_error(const request *asked, verdict refused)
{
    uint8_t frame[FRAME_OVERHEAD_BYTES + ERROR_BYTES] = {0};
    uint8_t *const payload = frame + FRAME_HEADER_BYTES;
    put_header(frame, TYPE_ERROR, asked);
    payload[0] = refused.code;
    payload[1] = asked->type;
    put_u32(payload + 4, refused.expected);
    frame_send(frame, frame_seal(frame, ERROR_BYTES));
}

static void send_reply(harness *self, const request *asked, uint16_t payload_bytes)
{
    put_header(self->reply, (uint8_t)(asked->type | TYPE_REPLY), asked);
    self->reply_bytes = frame_seal(self->reply, payload_bytes);
    self->last_sequence = asked->sequence;
    self->last_crc = asked->crc;
    frame_send(self->reply, self->reply_bytes);
}

static uint8_t is_repeat(const harness *self, const request *asked)
{
    return asked->sequence == self->last_sequence && asked->crc == self->last_crc;
}

static void reset_model(harness *self)
{
    memset(&self->scratch, 0, sizeof self->scratch); /* gates before the first step read as zero */
    model_reset(&self->state);
}

static uint16_t put_hello(uint8_t *payload)
{
    memset(payload, 0, HARNESS_HELLO_REPLY_BYTES);
    payload[0] = QG_SPEC_MAJOR;
    payload[1] = QG_SPEC_MINOR;
    payload[2] = CREDIT;
    payload[3] = PORT_TIMER_KIND;
    put_u32(payload + 4, PORT_TIMER_HZ);
    put_u16(payload + 8, HARNESS_BUFFER_BYTES);
    put_u16(payload + 10, HARNESS_BUFFER_BYTES);
    put_u16(payload + 12, MODEL_INPUTS);
    put_u16(payload + 14, MODEL_OUTPUTS);
    put_u16(payload + 16, MODEL_UNITS);
    model_digest(&model_descriptor, payload + 20);
    memcpy(payload + 20 + QG_DIGEST_BYTES, PORT_TARGET, sizeof PORT_TARGET - 1);
    return HARNESS_HELLO_REPLY_BYTES;
}

static verdict check_empty(const request *asked)
{
    return asked->payload_bytes == 0 ? accepted : refuse(REFUSED_LENGTH, 0);
}

/* Opens a session, unless it is the present one: a late duplicate must not rewind it. */
static verdict check_hello(const harness *self, const request *asked)
{
    if (asked->session == 0) {
        return refuse(REFUSED_ARGUMENT, 1);
    }
    if (asked->session == self->session) {
        return refuse(REFUSED_SEQUENCE, (uint16_t)(self->last_sequence + 1));
    }
    if (asked->sequence != 0) {
        return refuse(REFUSED_SEQUENCE, 0);
    }
    return check_empty(asked);
}

static verdict check_step(const request *asked)
{
    if (asked->payload_bytes < HARNESS_STEP_HEAD_BYTES) {
        return refuse(REFUSED_LENGTH, HARNESS_STEP_HEAD_BYTES);
    }
    const uint16_t n_steps = get_u16(asked->payload);
    if (n_steps == 0 || n_steps > MOST_STEPS) {
        return refuse(REFUSED_ARGUMENT, MOST_STEPS);
    }
    if (get_u16(asked->payload + 2) != 0) {
        return refuse(REFUSED_ARGUMENT, 0);
    }
    const uint16_t expected = (uint16_t)(HARNESS_STEP_HEAD_BYTES + n_steps * (2u * MODEL_INPUTS)); /* <= buffer */
    return asked->payload_bytes == expected ? accepted : refuse(REFUSED_LENGTH, expected);
}

static uint16_t execute_step(harness *self, const request *asked)
{
    const uint16_t n_steps = get_u16(asked->payload);
    const uint8_t *in = asked->payload + HARNESS_STEP_HEAD_BYTES;
    uint8_t *const payload = self->reply + FRAME_HEADER_BYTES;
    uint8_t *record = payload + HARNESS_STEP_HEAD_BYTES;
    put_u16(payload, n_steps);
    put_u16(payload + 2, 0);
    for (uint16_t step = 0; step < n_steps; ++step) {
        for (uint16_t i = 0; i < MODEL_INPUTS; ++i) {
            self->x[i] = (int16_t)get_u16(in);
            in += 2;
        }
        const uint32_t start = port_ticks();
        model_step(&self->state, &self->scratch, self->x);
        put_u32(record, port_ticks() - start);
        model_output(&self->state, &self->scratch, self->out);
        put_u32(record + 4, qg_step_check(&model_descriptor, self->state.h, self->state.residual, self->out, 0));
        record += 8;
        for (uint16_t i = 0; i < MODEL_OUTPUTS; ++i) {
            put_u16(record, (uint16_t)self->out[i]);
            record += 2;
        }
    }
    return (uint16_t)(record - payload);
}

static verdict check_read(const request *asked)
{
    if (asked->payload_bytes != READ_HEAD_BYTES) {
        return refuse(REFUSED_LENGTH, READ_HEAD_BYTES);
    }
    if (asked->payload[0] >= N_ARRAYS) {
        return refuse(REFUSED_ARGUMENT, N_ARRAYS - 1);
    }
    if (asked->payload[1] != 0) {
        return refuse(REFUSED_ARGUMENT, 0);
    }
    return get_u16(asked->payload + 2) < MODEL_UNITS ? accepted : refuse(REFUSED_ARGUMENT, MODEL_UNITS - 1);
}

/* Value i of an array as 16 bits. */
static uint16_t array_value(const harness *self, uint8_t array, uint16_t i)
{
    switch (array) {
    case ARRAY_U:
        return self->scratch.u[i];
    case ARRAY_R:
        return self->scratch.r[i];
    case ARRAY_N:
        return (uint16_t)self->scratch.n[i];
    case ARRAY_H:
        return (uint16_t)self->state.h[i];
    default:
        return self->state.residual[i];
    }
}

static uint16_t execute_read(harness *self, const request *asked)
{
    const uint16_t first = get_u16(asked->payload + 2);
    const uint16_t left = (uint16_t)(MODEL_UNITS - first);
    const uint16_t n = left < MOST_READ_VALUES ? left : MOST_READ_VALUES;
    uint8_t *const payload = self->reply + FRAME_HEADER_BYTES;
    memcpy(payload, asked->payload, READ_HEAD_BYTES);
    for (uint16_t i = 0; i < n; ++i) {
        put_u16(payload + READ_HEAD_BYTES + 2 * i, array_value(self, asked->payload[0], (uint16_t)(first + i)));
    }
    return (uint16_t)(READ_HEAD_BYTES + 2 * n);
}

static verdict check_session(const harness *self, const request *asked)
{
    if (self->session == 0) {
        return refuse(REFUSED_NO_SESSION, 0);
    }
    if (asked->session != self->session) {
        return refuse(REFUSED_OTHER_SESSION, self->session);
    }
    const uint16_t next = (uint16_t)(self->last_sequence + 1);
    return asked->sequence == next ? accepted : refuse(REFUSED_SEQUENCE, next);
}

static verdict check_request(const harness *self, const request *asked)
{
    if (asked->type == TYPE_HELLO) {
        return check_hello(self, asked);
    }
    const verdict in_session = check_session(self, asked);
    if (in_session.code != ACCEPTED) {
        return in_session;
    }
    switch (asked->type) {
    case TYPE_RESET:
        return check_empty(asked);
    case TYPE_STEP:
        return check_step(asked);
    case TYPE_READ:
        return check_read(asked);
    default:
        return refuse(REFUSED_TYPE, TYPE_READ);
    }
}

/* Executes a request that was accepted. Returns the length of the reply's payload. */
static uint16_t execute(harness *self, const request *asked)
{
    switch (asked->type) {
    case TYPE_HELLO:
        self->session = asked->session;
        reset_model(self);
        return put_hello(self->reply + FRAME_HEADER_BYTES);
    case TYPE_RESET:
        reset_model(self);
        return 0;
    case TYPE_STEP:
        return execute_step(self, asked);
    default:
        return execute_read(self, asked);
    }
}

static void answer(harness *self, const request *asked)
{
    if (self->session != 0 && asked->session == self->session && is_repeat(self, asked)) {
        frame_send(self->reply, self->reply_bytes);
        return;
    }
    const verdict found = check_request(self, asked);
    if (found.code != ACCEPTED) {
        send_error(asked, found);
        return;
    }
    send_reply(self, asked, execute(self, asked));
}

static void take_frame(harness *self, uint16_t length)
{
    const uint8_t *const frame = self->request;
    request asked;
    asked.type = frame[FRAME_TYPE_AT];
    asked.session = get_u32(frame + FRAME_SESSION_AT);
    asked.sequence = get_u16(frame + FRAME_SEQUENCE_AT);
    asked.payload = frame + FRAME_HEADER_BYTES;
    asked.payload_bytes = (uint16_t)(length - FRAME_OVERHEAD_BYTES);
    asked.crc = get_u32(frame + length - FRAME_CRC_BYTES);
    if (asked.type & TYPE_REPLY) {
        return; /* an echo of the line: answering it would never end */
    }
    if (frame[FRAME_VERSION_AT] != HARNESS_PROTOCOL_VERSION) {
        send_error(&asked, refuse(REFUSED_VERSION, HARNESS_PROTOCOL_VERSION));
        return;
    }
    if (get_u16(frame + FRAME_LENGTH_AT) != asked.payload_bytes) {
        send_error(&asked, refuse(REFUSED_LENGTH, asked.payload_bytes));
        return;
    }
    answer(self, &asked);
}

void harness_init(harness *self)
{
    memset(self, 0, sizeof *self);
    frame_decoder_init(&self->decoder, self->request, HARNESS_BUFFER_BYTES);
    model_reset(&self->state);
}

void harness_take(harness *self, uint8_t byte)
{
    const uint16_t length = frame_decoder_take(&self->decoder, byte);
    if (length != 0) {
        take_frame(self, length);
    }
}
