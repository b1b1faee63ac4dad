#include "harness.h"

#include "requests.h"
#include "stack.h"

/* Buffer sizes and lengths are 16 bits on the wire, and sequence numbers go round with the places of replies. */
typedef char harness_buffer_is_too_large[(HARNESS_BUFFER_BYTES) <= 65535 ? 1 : -1];
typedef char harness_replies_are_no_power_of_two[((PORT_REPLIES) & ((PORT_REPLIES)-1)) == 0 ? 1 : -1];

enum { ERROR_BYTES = 8 };

static void put_header(uint8_t *frame, uint8_t type, const request *asked)
{
    frame[FRAME_VERSION_AT] = HARNESS_PROTOCOL_VERSION;
    frame[FRAME_TYPE_AT] = type;
    put_u32(frame + FRAME_SESSION_AT, asked->session);
    put_u16(frame + FRAME_SEQUENCE_AT, asked->sequence);
}

/* From a frame of its own: kept replies must survive a refusal, for their requests may be repeated. */
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

static kept_reply *place_of(harness *self, uint16_t sequence)
{
    return &self->replies[sequence % (PORT_REPLIES)];
}

/* The reply to a request that was executed before; NULL if this is none, or too old. */
static const kept_reply *kept(harness *self, const request *asked)
{
    const kept_reply *const reply = place_of(self, asked->sequence);
    const uint8_t known = self->session != 0 && asked->session == self->session && reply->bytes != 0 &&
                          reply->sequence == asked->sequence && reply->request_crc == asked->crc;
    return known ? reply : NULL;
}

/* A session opens with number 0, unless it is the present one: a late duplicate must not rewind it. */
static verdict check_hello(const harness *self, const request *asked)
{
    if (asked->session == 0) {
        return refuse(REFUSED_ARGUMENT, 1);
    }
    if (asked->session == self->session) {
        return refuse(REFUSED_SEQUENCE, (uint16_t)(self->last_sequence + 1));
    }
    return asked->sequence == 0 ? accept() : refuse(REFUSED_SEQUENCE, 0);
}

static verdict check_session(const harness *self, const request *asked)
{
    if (asked->type == TYPE_HELLO) {
        return check_hello(self, asked);
    }
    if (self->session == 0) {
        return refuse(REFUSED_NO_SESSION, 0);
    }
    if (asked->session != self->session) {
        return refuse(REFUSED_OTHER_SESSION, self->session);
    }
    const uint16_t next = (uint16_t)(self->last_sequence + 1);
    return asked->sequence == next ? accept() : refuse(REFUSED_SEQUENCE, next);
}

static void open_session(harness *self, uint32_t session)
{
    self->session = session;
    for (uint8_t i = 0; i < (PORT_REPLIES); ++i) {
        self->replies[i].bytes = 0;
    }
}

static void execute(harness *self, const request *asked)
{
    kept_reply *const reply = place_of(self, asked->sequence);
    if (asked->type == TYPE_HELLO) {
        open_session(self, asked->session);
    }
    put_header(reply->frame, (uint8_t)(asked->type | TYPE_REPLY), asked);
    reply->bytes = frame_seal(reply->frame, request_execute(self, asked, reply->frame + FRAME_HEADER_BYTES));
    reply->request_crc = asked->crc;
    reply->sequence = asked->sequence;
    self->last_sequence = asked->sequence;
    frame_send(reply->frame, reply->bytes);
}

static void answer(harness *self, const request *asked)
{
    const kept_reply *const reply = kept(self, asked);
    if (reply != NULL) {
        frame_send(reply->frame, reply->bytes);
        return;
    }
    verdict found = check_session(self, asked);
    if (found.code == ACCEPTED) {
        found = request_check(self, asked);
    }
    if (found.code == ACCEPTED) {
        execute(self, asked);
    } else {
        send_error(asked, found);
    }
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
    stack_paint();
    memset(self, 0, sizeof *self);
    frame_decoder_init(&self->decoder, self->request, HARNESS_BUFFER_BYTES);
    if (held_descriptor(&self->model) != NULL) {
        held_reset(&self->model);
    }
}

void harness_take(harness *self, uint8_t byte)
{
    const uint16_t length = frame_decoder_take(&self->decoder, byte);
    if (length != 0) {
        take_frame(self, length);
    }
}
