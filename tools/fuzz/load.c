/* libFuzzer: any bytes as a blob. What qg_load accepts is run, with sanitizers for integers on: it must not overflow.
 *
 * A damaged blob ends at the CRC. The mutator therefore writes length and CRC anew, in all but one of 16 inputs.
 */
#include "fuzz.h"
#include "model_digest.h"
#include "quantgru_load.h"

#include <stdlib.h>
#include <string.h>

const char fuzz_reached_what[] = "models run";

enum { LENGTH_AT = 8, LEAST_BYTES = 56, CRC_BYTES = 4, MOST_MEMORY_BYTES = 1 << 20, STEPS = 3 };

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, most);
    if (size >= LEAST_BYTES && seed % 16 != 0) {
        fuzz_put_u32(data + LENGTH_AT, (uint32_t)size);
        fuzz_put_u32(data + size - CRC_BYTES, qg_crc32(0, data, size - CRC_BYTES));
    }
    return size;
}

/* Inputs at both ends of their range and between them, by step. */
static void fill(int16_t *x, uint16_t n, int step)
{
    for (uint16_t i = 0; i < n; ++i) {
        x[i] = (int16_t)(step == 0 ? -32768 : step == 1 ? 32767 : 257 * i);
    }
}

static void run(const qg_loaded *loaded)
{
    const qg_model *const model = &loaded->model;
    int16_t *const inputs = malloc(model->n_inputs * sizeof *inputs);
    int16_t *const outputs = malloc(model->n_outputs * sizeof *outputs);
    uint8_t digest[QG_DIGEST_BYTES];
    ++fuzz_reached;
    model_digest(model, digest);
    qg_reset(model, loaded->h, loaded->residual);
    for (int step = 0; step < STEPS; ++step) {
        fill(inputs, model->n_inputs, step);
        model->step(model, inputs, loaded->h, loaded->residual, &loaded->scratch);
        qg_output(model, loaded->h, &loaded->scratch, outputs);
        qg_saturated(model, loaded->scratch.gates.n);
    }
    free(inputs);
    free(outputs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qg_loaded loaded;
    uint8_t *const blob = malloc(size); /* of exactly this size, for the sanitizer */
    memcpy(blob, data, size);
    if (qg_load(blob, (uint32_t)size, NULL, 0, &loaded) == QG_LOAD_MEMORY && loaded.memory_bytes <= MOST_MEMORY_BYTES) {
        const uint32_t memory_bytes = loaded.memory_bytes;
        void *const memory = malloc(memory_bytes);
        if (qg_load(blob, (uint32_t)size, memory, memory_bytes, &loaded) == 0) {
            run(&loaded);
        }
        free(memory);
    }
    free(blob);
    return 0;
}
