/* The gate function without a curve [R18]. */
#include "quantgru.h"

#define HALF ((int32_t)1 << 14)

QG_KERNEL uint16_t qg_hard_sigmoid(int32_t a)
{
    if (a > HALF) { /* the limit comes first, for HALF + a can leave an int32_t */
        return 2 * HALF;
    }
    return (uint16_t)(a < -HALF ? 0 : HALF + a);
}
