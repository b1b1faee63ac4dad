/* Sigmoid and tanh of a pre-activation, from one table [R6, R7, R8]. */
#include "quantgru.h"

/* [R6] t(x) = tanh(x / 2) as u16f16: x = 0, 1/32 ... 5, then 5 1/8 ... 12. */
static const uint16_t half_tanh[217] QG_CONSTANT = {
    0,     1024,  2047,  3070,  4091,  5110,  6126,  7140,  8150,  9156,  10158, 11155, 12146, 13132, 14112, 15085,
    16051, 17010, 17961, 18904, 19839, 20765, 21681, 22588, 23486, 24373, 25251, 26117, 26973, 27818, 28652, 29475,
    30286, 31086, 31873, 32649, 33413, 34165, 34904, 35632, 36347, 37050, 37740, 38419, 39085, 39738, 40380, 41009,
    41626, 42231, 42824, 43404, 43973, 44530, 45076, 45610, 46132, 46643, 47143, 47631, 48109, 48576, 49032, 49477,
    49912, 50337, 50752, 51157, 51552, 51938, 52314, 52681, 53039, 53388, 53728, 54059, 54382, 54697, 55004, 55303,
    55594, 55877, 56153, 56421, 56683, 56937, 57185, 57426, 57661, 57889, 58111, 58327, 58537, 58741, 58939, 59132,
    59320, 59503, 59680, 59852, 60020, 60183, 60341, 60494, 60644, 60789, 60930, 61067, 61200, 61329, 61454, 61576,
    61694, 61809, 61921, 62029, 62134, 62236, 62335, 62431, 62524, 62615, 62703, 62788, 62871, 62952, 63030, 63105,
    63179, 63250, 63319, 63386, 63451, 63514, 63576, 63635, 63693, 63749, 63803, 63856, 63907, 63956, 64004, 64051,
    64096, 64140, 64182, 64224, 64264, 64302, 64340, 64376, 64412, 64446, 64479, 64512, 64543, 64573, 64603, 64631,
    64660, 64762, 64852, 64932, 65003, 65065, 65121, 65169, 65212, 65250, 65284, 65313, 65339, 65362, 65383, 65401,
    65417, 65431, 65443, 65454, 65464, 65472, 65480, 65486, 65492, 65497, 65502, 65506, 65509, 65512, 65515, 65518,
    65520, 65522, 65523, 65525, 65526, 65527, 65528, 65529, 65530, 65531, 65531, 65532, 65532, 65533, 65533, 65534,
    65534, 65534, 65534, 65534, 65535, 65535, 65535, 65535, 65535,
};

#define LIMIT (((int32_t)12 << 14) - 1) /* from here on the table ends: t = 1 to within half an LSB */
#define FINE_END ((int32_t)5 << 14)

/* |t| at |a|, 27 fraction bits, below 2^27. 0 <= a <= LIMIT, 14 fraction bits. */
static inline int32_t half_tanh_q27(int32_t a)
{
    int32_t fraction;
    const uint16_t *node;
    if (a < FINE_END) {
        node = half_tanh + (a >> 9);
        fraction = (a & 0x1ff) << 2;
    } else {
        node = half_tanh + (a >> 11) + 120; /* the node at 5 is 160 = (5 << 14 >> 11) + 120 */
        fraction = a & 0x7ff;
    }
    const int32_t low = QG_READ_U16(node);
    const int32_t high = QG_READ_U16(node + 1);
    return (low << 11) + (high - low) * fraction;
}

/* min(|a|, limit); the limit comes first, for |INT32_MIN| is no int32_t. */
static inline int32_t limited_magnitude(int32_t a, int32_t limit)
{
    if (a < 0) {
        return a > -limit ? -a : limit;
    }
    return a < limit ? a : limit;
}

QG_KERNEL uint16_t qg_sigmoid(int32_t a)
{
    const int32_t q = (half_tanh_q27(limited_magnitude(a, LIMIT)) + 0x1000) >> 13;
    return (uint16_t)(a < 0 ? 0x4000 - q : 0x4000 + q);
}

QG_KERNEL int16_t qg_tanh(int32_t a)
{
    /* Doubled, the limit is one below LIMIT, where t is the same: the last two nodes are equal. */
    const int32_t t = (half_tanh_q27(2 * limited_magnitude(a, LIMIT / 2)) + 0x800) >> 12;
    const int32_t q = t < INT16_MAX ? t : INT16_MAX;
    return (int16_t)(a < 0 ? -q : q);
}
