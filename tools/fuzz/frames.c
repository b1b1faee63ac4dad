/* libFuzzer: any bytes as what comes in on the line, then a frame: it must come out whole, whatever came before. */
#include "frames.h"
#include "fuzz.h"
#include "port.h"

#include <stdlib.h>
#include <string.h>

const char fuzz_reached_what[] = "frames taken";

enum { LEAST_ROOM = FRAME_OVERHEAD_BYTES };

/* The line: what frame_send writes goes into the decoder. */
static frame_decoder decoder;
static uint16_t last_length; /* of the last frame that came out; 0 if a byte since then ended none */

static void take(uint8_t byte)
{
    const uint16_t length = frame_decoder_take(&decoder, byte);
    if (length != 0 && (length < FRAME_OVERHEAD_BYTES || length > decoder.size)) {
        abort();
    }
    fuzz_reached += length != 0;
    last_length = length;
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        take(bytes[i]);
    }
}

/* The bytes as header and payload. */
static void send(const uint8_t *data, uint16_t n)
{
    uint8_t *const frame = malloc(n + FRAME_CRC_BYTES);
    memcpy(frame, data, n);
    const uint16_t length = frame_seal(frame, (uint16_t)(n - FRAME_HEADER_BYTES));
    frame_send(frame, length);
    if (last_length != (length <= decoder.size ? length : 0) || memcmp(decoder.bytes, frame, last_length) != 0) {
        abort();
    }
    free(frame);
}

/* The first byte says how much room there is for a frame. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const uint16_t room = (uint16_t)(LEAST_ROOM + *data++);
    uint8_t *const bytes = malloc(room); /* of exactly this size, for the sanitizer */
    frame_decoder_init(&decoder, bytes, room);
    --size;
    for (size_t i = 0; i < size; ++i) {
        take(data[i]);
    }
    if (size >= FRAME_HEADER_BYTES && size <= UINT16_MAX - FRAME_CRC_BYTES) {
        send(data, (uint16_t)size);
    }
    free(bytes);
    return 0;
}
