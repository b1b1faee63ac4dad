#include "held_model.h"

#include "model_digest.h"

/* Besides the causes of qg_load, without their sign. */
enum { LOADED = 0, OTHER_DIGEST = 1, FRAME_TOO_SMALL = 2, ROOM_TOO_SMALL = -QG_LOAD_MEMORY };

static uint32_t aligned(uint32_t n_bytes)
{
    return (n_bytes + 7u) & ~(uint32_t)7;
}

uint32_t held_load(held_model *held, uint32_t n_bytes, uint16_t most_values)
{
    uint8_t *const room = (uint8_t *)held->room;
    const uint32_t memory_at = aligned(n_bytes);
    uint8_t digest[QG_DIGEST_BYTES];
    held->is_loaded = 0;
    const int8_t refused =
        qg_load(room, n_bytes, room + memory_at, (uint32_t)sizeof held->room - memory_at, &held->loaded);
    if (refused != 0) {
        return (uint32_t)-refused;
    }
    const qg_model *const model = &held->loaded.model;
    const uint32_t values_at = memory_at + aligned(held->loaded.memory_bytes);
    const uint32_t values_bytes = ((uint32_t)model->n_inputs + model->n_outputs) * (uint32_t)sizeof(int16_t);
    if (values_bytes > sizeof held->room - values_at) {
        return ROOM_TOO_SMALL;
    }
    if (model->n_inputs > most_values || model->n_outputs > most_values) {
        return FRAME_TOO_SMALL;
    }
    model_digest(model, digest);
    if (memcmp(digest, model->digest, sizeof digest) != 0) {
        return OTHER_DIGEST;
    }
    held->x = (int16_t *)(room + values_at);
    held->out = held->x + model->n_inputs;
    held->is_loaded = 1;
    return LOADED;
}
