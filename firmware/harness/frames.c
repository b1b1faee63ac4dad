#include "frames.h"

#include "port.h"
#include "quantgru.h"

#define DELIMITER 0u
#define LONGEST_BLOCK 254u /* bytes behind one COBS code */

uint16_t get_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | (uint16_t)bytes[1] << 8);
}

uint32_t get_u32(const uint8_t *bytes)
{
    return get_u16(bytes) | (uint32_t)get_u16(bytes + 2) << 16;
}

void put_u16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)(value & 0xff);
    bytes[1] = (uint8_t)(value >> 8);
}

void put_u32(uint8_t *bytes, uint32_t value)
{
    put_u16(bytes, (uint16_t)(value & 0xffff));
    put_u16(bytes + 2, (uint16_t)(value >> 16));
}

static void start_frame(frame_decoder *decoder)
{
    decoder->length = 0;
    decoder->block_left = 0;
    decoder->zero_follows = 0;
    decoder->damaged = 0;
}

void frame_decoder_init(frame_decoder *decoder, uint8_t *bytes, uint16_t size)
{
    decoder->bytes = bytes;
    decoder->size = size;
    start_frame(decoder);
}

static void append(frame_decoder *decoder, uint8_t byte)
{
    if (decoder->length == decoder->size) {
        decoder->damaged = 1;
        return;
    }
    decoder->bytes[decoder->length++] = byte;
}

/* The length of the frame that a delimiter has ended, or 0. */
static uint16_t complete_length(const frame_decoder *decoder)
{
    const uint16_t length = decoder->length;
    if (decoder->damaged || decoder->block_left != 0 || length < FRAME_OVERHEAD_BYTES) {
        return 0;
    }
    const uint16_t crc_at = (uint16_t)(length - FRAME_CRC_BYTES);
    return qg_crc32(0, decoder->bytes, crc_at) == get_u32(decoder->bytes + crc_at) ? length : 0;
}

uint16_t frame_decoder_take(frame_decoder *decoder, uint8_t byte)
{
    if (byte == DELIMITER) {
        const uint16_t length = complete_length(decoder);
        start_frame(decoder);
        return length;
    }
    if (decoder->block_left != 0) {
        --decoder->block_left;
        append(decoder, byte);
        return 0;
    }
    if (decoder->zero_follows) {
        append(decoder, 0);
    }
    decoder->block_left = (uint8_t)(byte - 1);
    decoder->zero_follows = byte <= LONGEST_BLOCK;
    return 0;
}

uint16_t frame_seal(uint8_t *frame, uint16_t payload_bytes)
{
    const uint16_t crc_at = (uint16_t)(FRAME_HEADER_BYTES + payload_bytes);
    put_u16(frame + FRAME_LENGTH_AT, payload_bytes);
    put_u32(frame + crc_at, qg_crc32(0, frame, crc_at));
    return (uint16_t)(crc_at + FRAME_CRC_BYTES);
}

void frame_send(const uint8_t *frame, uint16_t length)
{
    static const uint8_t delimiter = DELIMITER;
    const uint8_t *const end = frame + length;
    uint8_t at_end = 0;
    port_write(&delimiter, 1);
    while (!at_end) { /* one block a turn; a zero at the very end is followed by an empty block */
        uint8_t n = 0;
        while (n < LONGEST_BLOCK && frame + n != end && frame[n] != 0) {
            ++n;
        }
        const uint8_t code = (uint8_t)(n + 1);
        port_write(&code, 1);
        port_write(frame, n);
        frame += n;
        at_end = frame == end;
        if (!at_end && n != LONGEST_BLOCK) {
            ++frame; /* the zero that the code stands for */
        }
    }
    port_write(&delimiter, 1);
}
