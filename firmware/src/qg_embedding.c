/* Vectors for tokens [R21]. */
#include "quantgru.h"

void qg_look_up(const qg_embedding *embedding, const int16_t *x, int16_t *out)
{
    const uint16_t last = (uint16_t)(embedding->n_tokens - 1); /* 0 ... 2^15 - 1 */
    const uint16_t token = (uint16_t)(*x < 0 ? 0 : *x);
    const uint16_t n_outputs = embedding->n_outputs;
    const int8_t *codes = embedding->codes + (size_t)(token < last ? token : last) * n_outputs;
    size_t i = 0;
    do {
        out[i] = (int16_t)(QG_READ_S8(codes + i) * 256); /* -2^15 ... 127 2^8 */
    } while (++i < n_outputs);
}
