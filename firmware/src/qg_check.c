/* Check values: what a step computed, in 32 bits. */
#include "quantgru.h"

uint32_t qg_crc32(uint32_t crc, const uint8_t *bytes, size_t n_bytes)
{
    crc = ~crc;
    while (n_bytes-- != 0) {
        crc ^= *bytes++;
        for (uint8_t bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ (0xedb88320u & (uint32_t) - (int32_t)(crc & 1)); /* reflected 0x04c11db7 */
        }
    }
    return ~crc;
}

static uint32_t check_values(uint32_t crc, const void *values, uint16_t n) /* 16 bits each, as they lie in memory */
{
    const uint16_t *value = (const uint16_t *)values;
    for (uint16_t i = 0; i < n; ++i) {
        const uint8_t little_endian[2] = {(uint8_t)(value[i] & 0xff), (uint8_t)(value[i] >> 8)};
        crc = qg_crc32(crc, little_endian, sizeof little_endian);
    }
    return crc;
}

uint32_t qg_step_check(const qg_model *model, const int16_t *h, const uint16_t *residual, const int16_t *out,
                       uint32_t crc)
{
    crc = check_values(crc, h, model->n_units);
    crc = check_values(crc, residual, model->n_units);
    return check_values(crc, out, model->n_outputs);
}

int8_t qg_selftest(const qg_model *model, const qg_selftest_vector *vector, int16_t *h, uint16_t *residual,
                   const qg_scratch *scratch, int16_t *x, int16_t *out)
{
    uint32_t check = 0;
    qg_reset(model, h, residual);
    for (uint16_t step = 0; step < vector->n_steps; ++step) {
        for (uint16_t i = 0; i < model->n_inputs; ++i) {
            x[i] = QG_READ_S16(vector->inputs + (size_t)step * model->n_inputs + i);
        }
        qg_step(model, x, h, residual, scratch);
        qg_output(model, h, scratch, out);
        check = qg_step_check(model, h, residual, out, check);
    }
    qg_reset(model, h, residual);
    return check == vector->check ? 0 : QG_SELFTEST_FAILED;
}
