/* What the tests need of the C library and cannot reach through a shared object: the inline functions of qg_fixed.h
 * under names of their own, sweeps over many arguments in one call, and a mistake that a sanitizer must see. */
#include "qg_fixed.h"
#include "quantgru.h"

int32_t shim_round_shift(int32_t v, uint8_t s)
{
    return qg_round_shift(v, s);
}

int16_t shim_saturate16(int32_t v)
{
    return qg_saturate16(v);
}

int32_t shim_mul_shift16(int32_t a, uint16_t m)
{
    return qg_mul_shift16(a, m);
}

int32_t shim_requantize(int32_t acc, uint8_t k, uint16_t m, uint8_t s)
{
    return qg_requantize(acc, k, m, s);
}

int32_t shim_reset_product(int32_t b, uint16_t r)
{
    return qg_reset_product(b, r);
}

void shim_sigmoids(int32_t first, int32_t n, uint16_t *results)
{
    for (int32_t i = 0; i < n; ++i) {
        results[i] = qg_sigmoid(first + i);
    }
}

void shim_tanhs(int32_t first, int32_t n, int16_t *results)
{
    for (int32_t i = 0; i < n; ++i) {
        results[i] = qg_tanh(first + i);
    }
}

int32_t shim_overflow(int32_t v)
{
    return v + 1;
}

int32_t shim_read(const int32_t *values, int32_t i)
{
    return values[i];
}

void shim_step(const qg_model *model, const int16_t *x, int16_t *h, uint16_t *residual, const qg_scratch *scratch)
{
    model->step(model, x, h, residual, scratch);
}

size_t shim_sizes(int32_t i)
{
    const size_t sizes[] = {sizeof(qg_section), sizeof(qg_packing), sizeof(qg_matrix),    sizeof(qg_gates),
                            sizeof(qg_gru),     sizeof(qg_dense),   sizeof(qg_embedding), sizeof(qg_bidirectional),
                            sizeof(qg_model),   sizeof(qg_scratch), sizeof(qg_work),      sizeof(qg_selftest_vector)};
    return sizes[i];
}
