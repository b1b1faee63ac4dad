/* libFuzzer: what a host might send, right and wrong, to the whole test firmware.
 *
 * An input is a row of messages: u8 flags, u16 n, n bytes (fewer at the end). Without flags, the bytes are type and
 * payload of a frame of the open session with the next number; a flag makes one of these another, or sends the bytes as
 * they are.
 */
#include "harness.h"
#include "fuzz.h"

#include <string.h>

const char fuzz_reached_what[] = "requests executed";

enum { RAW = 1, OTHER_VERSION = 2, OTHER_SESSION = 4, OTHER_SEQUENCE = 8, AGAIN = 16 };
enum { HELLO = 1, SEED = 6, REPLY_ERROR = 0xff };
enum { HEAD_BYTES = 3, MOST_BYTES = 4096, MOST_SEED_STEPS = 31 };

static harness board;
static uint32_t session;  /* the last one that was asked for */
static uint16_t sequence; /* of the next request */

/* The line, one way at a time. */
static uint8_t request[MOST_BYTES + FRAME_OVERHEAD_BYTES];
static uint8_t wire[2 * sizeof request];
static uint16_t wire_bytes;
static uint8_t sending;

static uint8_t reply[HARNESS_BUFFER_BYTES];
static frame_decoder replies;
static uint8_t executed; /* 1: the last request was answered, and not by an ERROR */

void port_write(const uint8_t *bytes, uint16_t n)
{
    if (sending) {
        memcpy(wire + wire_bytes, bytes, n);
        wire_bytes = (uint16_t)(wire_bytes + n);
        return;
    }
    for (uint16_t i = 0; i < n; ++i) {
        if (frame_decoder_take(&replies, bytes[i]) != 0) {
            executed = reply[FRAME_TYPE_AT] != REPLY_ERROR;
        }
    }
}

void port_init(void)
{
}

uint32_t port_ticks(void)
{
    static uint32_t ticks;
    return ticks += 0x10000001; /* wraps around */
}

static void receive(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; ++i) {
        harness_take(&board, bytes[i]);
    }
}

/* Puts `wire` together. HELLO opens a session that nobody had. */
static void make_request(uint8_t flags, const uint8_t *bytes, uint16_t n)
{
    uint8_t type = n == 0 ? 0 : bytes[0];
    if (type == HELLO) {
        ++session;
        sequence = 0;
    }
    request[FRAME_VERSION_AT] = (uint8_t)(HARNESS_PROTOCOL_VERSION + ((flags & OTHER_VERSION) != 0));
    request[FRAME_TYPE_AT] = type;
    put_u32(request + FRAME_SESSION_AT, flags & OTHER_SESSION ? n : session);
    put_u16(request + FRAME_SEQUENCE_AT, (uint16_t)(flags & OTHER_SEQUENCE ? n : sequence));
    const uint16_t payload_bytes = (uint16_t)(n == 0 ? 0 : n - 1);
    memcpy(request + FRAME_HEADER_BYTES, bytes + (n != 0), payload_bytes);
    if (type == SEED) { /* 65535 steps would take the time of a thousand inputs */
        put_u16(request + FRAME_HEADER_BYTES, get_u16(request + FRAME_HEADER_BYTES) & MOST_SEED_STEPS);
    }
    wire_bytes = 0;
    sending = 1;
    frame_send(request, frame_seal(request, payload_bytes));
    sending = 0;
}

static void send(uint8_t flags, const uint8_t *bytes, uint16_t n)
{
    if (flags & RAW) {
        receive(bytes, n);
        return;
    }
    if ((flags & AGAIN) == 0) {
        make_request(flags, bytes, n);
    }
    executed = 0;
    receive(wire, wire_bytes);
    if (executed && (flags & AGAIN) == 0) {
        ++sequence;
        ++fuzz_reached;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    session = 0;
    sequence = 0;
    wire_bytes = 0;
    harness_init(&board);
    frame_decoder_init(&replies, reply, sizeof reply);
    while (size >= HEAD_BYTES) {
        const uint16_t wanted = get_u16(data + 1);
        const uint8_t flags = data[0];
        data += HEAD_BYTES;
        size -= HEAD_BYTES;
        const uint16_t left = (uint16_t)(size < MOST_BYTES ? size : MOST_BYTES);
        const uint16_t n = wanted < left ? wanted : left;
        send(flags, data, n);
        data += n;
        size -= n;
    }
    return 0;
}
