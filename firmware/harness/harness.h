/* The serial test firmware without its input and output: bytes in, replies out (PROTOCOL.md). */
#ifndef HARNESS_H
#define HARNESS_H

#include "frames.h"
#include "model.h"
#include "port.h"

#ifdef MODEL_STEPS
#error "this model needs whole sequences (it has a MODEL_run): the test firmware runs models step by step"
#endif

#define HARNESS_PROTOCOL_VERSION 1

enum {
    HARNESS_STEP_HEAD_BYTES = 4,
    HARNESS_STEP_RECORD_BYTES = 8 + 2 * MODEL_OUTPUTS, /* ticks, check value, outputs */
    HARNESS_HELLO_REPLY_BYTES = 76
};

/* A buffer holds a whole frame, and a frame at least one step of the model. */
#define HARNESS_MAX(a, b) ((a) > (b) ? (a) : (b))
#define HARNESS_LEAST_PAYLOAD                                                                                          \
    HARNESS_MAX(HARNESS_HELLO_REPLY_BYTES,                                                                             \
                HARNESS_STEP_HEAD_BYTES + HARNESS_MAX(2 * MODEL_INPUTS, HARNESS_STEP_RECORD_BYTES))
#define HARNESS_BUFFER_BYTES HARNESS_MAX(PORT_BUFFER_BYTES, FRAME_OVERHEAD_BYTES + HARNESS_LEAST_PAYLOAD)

typedef struct harness {
    uint32_t session;       /* 0: none */
    uint32_t last_crc;      /* of the last request that was executed; a repeat has the same */
    uint16_t last_sequence; /* of that request */
    uint16_t reply_bytes;   /* length of the frame in `reply` */
    frame_decoder decoder;  /* collects in `request` */
    uint8_t request[HARNESS_BUFFER_BYTES];
    uint8_t reply[HARNESS_BUFFER_BYTES]; /* kept until the next request is executed */
    int16_t x[MODEL_INPUTS];
    int16_t out[MODEL_OUTPUTS];
    model_state state;
    model_scratch scratch;
} harness;

void harness_init(harness *self);

/* Takes one byte of the line. Executes the request that it completes, if any, and sends the reply. */
void harness_take(harness *self, uint8_t byte);

#endif
