/* The serial test firmware without its input and output: bytes in, replies out (PROTOCOL.md). */
#ifndef HARNESS_H
#define HARNESS_H

#include "frames.h"
#include "held_model.h"
#include "port.h"

#define HARNESS_PROTOCOL_VERSION 2

enum {
    HARNESS_STEP_HEAD_BYTES = 4,
    HARNESS_STEP_RECORD_BYTES = 8, /* ticks and check value; the outputs follow */
    HARNESS_DESCRIPTION_BYTES = 90,
    HARNESS_LOAD_REPLY_BYTES = 4 + HARNESS_DESCRIPTION_BYTES
};

/* A buffer holds a whole frame, and a frame at least one step of a model that is compiled in. */
#define HARNESS_MAX(a, b) ((a) > (b) ? (a) : (b))
#define HARNESS_LEAST_PAYLOAD                                                                                          \
    HARNESS_MAX(HARNESS_LOAD_REPLY_BYTES,                                                                              \
                HARNESS_STEP_HEAD_BYTES + HARNESS_MAX(2 * HELD_INPUTS, HARNESS_STEP_RECORD_BYTES + 2 * HELD_OUTPUTS))
#define HARNESS_BUFFER_BYTES HARNESS_MAX(PORT_BUFFER_BYTES, FRAME_OVERHEAD_BYTES + HARNESS_LEAST_PAYLOAD)
#define HARNESS_PAYLOAD_ROOM (HARNESS_BUFFER_BYTES - FRAME_OVERHEAD_BYTES)

/* A reply, kept until its place is needed: its request may be repeated. */
typedef struct kept_reply {
    uint32_t request_crc;
    uint16_t sequence;
    uint16_t bytes; /* 0: nothing is kept here */
    uint8_t frame[HARNESS_BUFFER_BYTES];
} kept_reply;

typedef struct harness {
    uint32_t session;       /* 0: none */
    uint16_t last_sequence; /* of the last request that was executed */
    frame_decoder decoder;  /* collects in `request` */
    uint8_t request[HARNESS_BUFFER_BYTES];
    kept_reply replies[PORT_REPLIES]; /* of request n at n modulo PORT_REPLIES */
    held_model model;
} harness;

void harness_init(harness *self);

/* Takes one byte of the line. Executes the request that it completes, if any, and sends the reply. */
void harness_take(harness *self, uint8_t byte);

#endif
