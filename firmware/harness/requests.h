/* The requests of PROTOCOL.md, chapter 3: whether one can be executed, and what it does. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include "harness.h"

enum {
    TYPE_HELLO = 1,
    TYPE_RESET = 2,
    TYPE_STEP = 3,
    TYPE_READ = 4,
    TYPE_DIGEST = 5,
    TYPE_SEED = 6,
    TYPE_STACK = 7,
    TYPE_WRITE = 8,
    TYPE_LOAD = 9,
    TYPE_INPUTS = 10,
    TYPE_RUN = 11,
    TYPE_OUTPUTS = 12,
    TYPE_TIME = 13,
    TYPE_REPLY = 0x80,
    TYPE_ERROR = 0xff
};

enum {
    ACCEPTED = 0,
    REFUSED_VERSION = 1,
    REFUSED_NO_SESSION = 2,
    REFUSED_OTHER_SESSION = 3,
    REFUSED_SEQUENCE = 4,
    REFUSED_TYPE = 5,
    REFUSED_LENGTH = 6,
    REFUSED_ARGUMENT = 7,
    REFUSED_NO_MODEL = 8
};

typedef struct request {
    uint32_t session;
    uint32_t crc;
    uint16_t sequence;
    uint16_t payload_bytes;
    const uint8_t *payload;
    uint8_t type;
} request;

/* Whether a request can be executed: ACCEPTED, or the code of the ERROR reply with what was expected. */
typedef struct verdict {
    uint8_t code;
    uint32_t expected;
} verdict;

verdict accept(void);
verdict refuse(uint8_t code, uint32_t expected);

/* Refuses a payload of another length. */
verdict check_length(const request *asked, uint16_t expected);

/* Looks at a request of the session, or at HELLO, but for its session and its number. Changes nothing. */
verdict request_check(const harness *self, const request *asked);

/* Executes a request that was accepted. Writes the reply's payload and returns its length. */
uint16_t request_execute(harness *self, const request *asked, uint8_t *payload);

#endif
