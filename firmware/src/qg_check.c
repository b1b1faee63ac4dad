/* Check values: what was computed, in 32 bits [R16, R24]. */
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

uint32_t qg_check_values(uint32_t crc, const void *values, uint16_t n)
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
    crc = qg_check_values(crc, h, model->n_units);
    crc = qg_check_values(crc, residual, model->n_units);
    return qg_check_values(crc, out, model->n_outputs);
}
