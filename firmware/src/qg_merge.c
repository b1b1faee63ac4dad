/* One output of a bidirectional layer [R23]. */
#include "qg_fixed.h"
#include "quantgru.h"

int16_t qg_merge_mean(int16_t forward, int16_t backward)
{
    return (int16_t)qg_round_shift((int32_t)forward + backward, 1); /* between the two, or one above the lower */
}

int16_t qg_merge_product(int16_t forward, int16_t backward)
{
    return qg_saturate16(qg_round_shift((int32_t)forward * backward, 15)); /* |product| <= 2^30 */
}
