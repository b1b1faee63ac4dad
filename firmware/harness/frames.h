/* Frames on the wire: COBS(header | payload | CRC-32) 0x00 (PROTOCOL.md, chapter 2). Bytes in, whole frames out. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdint.h>

enum {
    FRAME_VERSION_AT = 0,
    FRAME_TYPE_AT = 1,
    FRAME_SESSION_AT = 2,
    FRAME_SEQUENCE_AT = 6,
    FRAME_LENGTH_AT = 8,
    FRAME_HEADER_BYTES = 10,
    FRAME_CRC_BYTES = 4,
    FRAME_OVERHEAD_BYTES = FRAME_HEADER_BYTES + FRAME_CRC_BYTES
};

/* Undoes COBS while the bytes come in, so that the buffer holds a frame and no overhead. */
typedef struct frame_decoder {
    uint8_t *bytes; /* [size], the caller's */
    uint16_t size;
    uint16_t length;
    uint8_t block_left;   /* bytes until the next COBS code */
    uint8_t zero_follows; /* a zero stands between this block and the next */
    uint8_t damaged;      /* longer than `size`: dropped at its end */
} frame_decoder;

void frame_decoder_init(frame_decoder *decoder, uint8_t *bytes, uint16_t size);

/* Takes one byte. Returns the length of a frame that is now complete in `bytes`, at least FRAME_OVERHEAD_BYTES and with
 * the right CRC; else 0. The frame is to be read before the next byte comes in. */
uint16_t frame_decoder_take(frame_decoder *decoder, uint8_t byte);

/* Writes length and CRC of a frame whose other header fields and payload are in place. Returns the frame's length. */
uint16_t frame_seal(uint8_t *frame, uint16_t payload_bytes);

/* Sends a sealed frame through port_write: a delimiter, which ends whatever noise came before, COBS, a delimiter. */
void frame_send(const uint8_t *frame, uint16_t length);

/* Little-endian numbers at any address. */
uint16_t get_u16(const uint8_t *bytes);
uint32_t get_u32(const uint8_t *bytes);
void put_u16(uint8_t *bytes, uint16_t value);
void put_u32(uint8_t *bytes, uint32_t value);

#endif
