/* Loads the blobs that come in, runs what is accepted, and answers with numbers: for this machine and for boards.
 *
 * A request: u32 bytes of the blob, u32 its offset from a multiple of 8, u32 bytes of memory, u32 its offset, u32
 * number of inputs, the blob, s16 inputs of as many steps as they are enough for. An answer: s8 what qg_load returned,
 * u32 memory_bytes of qg_loaded; if that was 0: u16 inputs, outputs, units, u8 last_step, s8 output fraction bits, the
 * digest that the blob names, the digest of the constants, and for each step u32 check value, s16 outputs.
 * Little-endian.
 */
#include "frames.h"
#include "model_digest.h"
#include "port.h"
#include "quantgru_load.h"

#include <stddef.h>

enum { BLOB_ROOM = 100000, MEMORY_ROOM = 40000, MOST_VALUES = 1200 };

/* What is given stands at the end of its room, so that a sanitizer sees what goes beyond. */
static uint64_t blob_room[BLOB_ROOM / 8];
static uint64_t memory_room[MEMORY_ROOM / 8];
static int16_t inputs[MOST_VALUES];
static int16_t outputs[MOST_VALUES];

static uint16_t read_u16(void)
{
    const uint8_t low = port_read_byte();
    return (uint16_t)(low | (uint16_t)port_read_byte() << 8);
}

static uint32_t read_u32(void)
{
    const uint16_t low = read_u16();
    return low | (uint32_t)read_u16() << 16;
}

static void write_u8(uint8_t value)
{
    port_write(&value, 1);
}

static void write_u16(uint16_t value)
{
    uint8_t bytes[2];
    put_u16(bytes, value);
    port_write(bytes, sizeof bytes);
}

static void write_u32(uint32_t value)
{
    uint8_t bytes[4];
    put_u32(bytes, value);
    port_write(bytes, sizeof bytes);
}

/* n bytes, `offset` bytes behind a multiple of 8, as near to the end of the room as that allows. */
static uint8_t *at_the_end(void *room, size_t room_bytes, uint32_t n, uint32_t offset)
{
    return (uint8_t *)room + (room_bytes - offset - n) / 8 * 8 + offset;
}

static void describe(const qg_model *model)
{
    uint8_t digest[QG_DIGEST_BYTES];
    write_u16(model->n_inputs);
    write_u16(model->n_outputs);
    write_u16(model->n_units);
    write_u8(model->last_step);
    write_u8((uint8_t)model->output_fraction_bits);
    port_write(model->digest, QG_DIGEST_BYTES);
    model_digest(model, digest);
    port_write(digest, sizeof digest);
}

static void run_step(qg_loaded *loaded)
{
    const qg_model *const model = &loaded->model;
    for (uint16_t i = 0; i < model->n_inputs; ++i) {
        inputs[i] = (int16_t)read_u16();
    }
    model->step(model, inputs, loaded->h, loaded->residual, &loaded->scratch);
    qg_output(model, loaded->h, &loaded->scratch, outputs);
    write_u32(qg_step_check(model, loaded->h, loaded->residual, outputs, 0));
    for (uint16_t i = 0; i < model->n_outputs; ++i) {
        write_u16((uint16_t)outputs[i]);
    }
}

static void answer(void)
{
    qg_loaded loaded = {0};
    const uint32_t n_bytes = read_u32();
    const uint32_t blob_offset = read_u32();
    const uint32_t memory_bytes = read_u32();
    const uint32_t memory_offset = read_u32();
    uint32_t n_inputs_left = read_u32();
    uint8_t *const blob = at_the_end(blob_room, sizeof blob_room, n_bytes, blob_offset);
    uint8_t *const memory = at_the_end(memory_room, sizeof memory_room, memory_bytes, memory_offset);
    for (uint32_t i = 0; i < n_bytes; ++i) {
        blob[i] = port_read_byte();
    }
    const int8_t refused = qg_load(blob, n_bytes, memory_bytes == 0 ? NULL : memory, memory_bytes, &loaded);
    write_u8((uint8_t)refused);
    write_u32(loaded.memory_bytes);
    if (refused == 0) {
        describe(&loaded.model);
        qg_reset(&loaded.model, loaded.h, loaded.residual);
        for (; n_inputs_left >= loaded.model.n_inputs; n_inputs_left -= loaded.model.n_inputs) {
            run_step(&loaded);
        }
    }
    for (; n_inputs_left > 0; --n_inputs_left) { /* nobody wants them */
        read_u16();
    }
}

int main(void)
{
    port_init();
    for (;;) {
        answer();
    }
}
