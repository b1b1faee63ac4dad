/* phrase: constants and descriptors, exported by quantgru. Digest 70012592da40adce4c871b43776be0d78ce39551a1b074d096c468e6929c1c73 */
#include "phrase.h"

const int8_t phrase_input_fraction_bits[PHRASE_INPUTS] QG_CONSTANT = PHRASE_INPUT_FRACTION_BITS;

static const uint8_t digest[32] QG_CONSTANT = {
    112, 1, 37, 146, 218, 64, 173, 206, 76, 135, 27, 67, 119, 107, 224, 215, 140, 227, 149, 81, 161, 176, 116, 208,
    150, 196, 104, 230, 146, 156, 28, 115,
};

static const qg_packing in_bytes = {qg_affine_bytes, NULL};

/* Embedding words: 11 tokens, 5 outputs */
static const int8_t embedding_codes[55] QG_CONSTANT = {
    -51, 22, -112, 33, 92, -29, 39, 17, -20, -70, -128, 127, -3, 127, 67, 17, -59, 94, -25, 127, -25, 17, -103, 118,
    -8, -24, 73, -60, 39, -95, 34, -94, -124, -30, -118, 35, 2, 34, 5, -29, 2, 95, -12, -38, -78, -14, -68, 127, -59,
    -87, -19, 59, -18, -48, -65,
};

/* GRU context forward: 5 inputs, 4 units, reset after, gates sigmoid, candidate tanh */
static const int8_t gru0_input_codes[60] QG_CONSTANT = {
    -42, 16, 25, -125, 127, 29, -55, -128, -50, 4, 38, 0, 29, -128, -37, -70, 8, 30, -128, -9, 89, 79, -128, 87, 32,
    -40, 127, -97, -32, 33, 17, -8, 90, 127, 50, 46, -2, -50, 127, -35, 127, -5, 12, -12, 42, -50, 127, 49, 22, -44,
    20, 0, 127, 84, -87, 83, -90, 78, -128, 0,
};

static const uint16_t gru0_input_multipliers[12] QG_CONSTANT = {
    31183, 27763, 16765, 30533, 17320, 23040, 30338, 22961, 18706, 21634, 29735, 19639,
};

static const uint8_t gru0_input_shifts[12] QG_CONSTANT = {
    5, 6, 4, 5, 5, 5, 5, 4, 4, 5, 5, 4,
};

static const int8_t gru0_recurrent_codes[48] QG_CONSTANT = {
    84, -1, -113, 127, -128, -105, 100, -62, 39, 127, -17, 43, 13, 23, 127, 100, 45, 127, -75, -106, -78, 61, 127, 7,
    -128, -33, 30, 19, 9, 94, 88, -128, 44, -76, 24, 127, 127, 49, -35, -24, 69, -128, -9, 78, 86, -28, 34, 127,
};

static const uint16_t gru0_recurrent_multipliers[12] QG_CONSTANT = {
    20365, 29157, 26747, 19602, 30301, 26830, 32418, 21968, 20541, 30242, 32373, 22500,
};

static const uint8_t gru0_recurrent_shifts[12] QG_CONSTANT = {
    6, 6, 7, 6, 7, 6, 6, 6, 6, 6, 7, 6,
};

static const int32_t gru0_bias[12] QG_CONSTANT = {
    4985, -28081, 3579, 4156, -6948, 792, -24229, 20357, 6820, -8936, 3848, 2162,
};

static const int32_t gru0_recurrent_bias[4] QG_CONSTANT = {
    -5755, 15947, -16042, -1459,
};

/* GRU context backward: 5 inputs, 4 units, reset before, gates sigmoid, candidate tanh */
static const int8_t gru1_input_codes[60] QG_CONSTANT = {
    -42, -90, -128, 122, -42, -25, 34, -29, 127, -63, 49, -128, 58, 75, 25, 32, 20, 85, 127, -78, 127, -80, 18, -38,
    45, -35, 30, -48, -128, 89, 55, 35, 86, -128, 69, -128, 32, -20, 41, 66, 2, -56, 75, 127, 46, 87, -104, 6, -12,
    -128, 10, 0, -128, -96, 6, 57, 47, -98, -128, -37,
};

static const uint16_t gru1_input_multipliers[12] QG_CONSTANT = {
    22107, 25014, 24305, 20202, 17747, 19967, 22070, 17593, 24708, 25331, 23391, 22428,
};

static const uint8_t gru1_input_shifts[12] QG_CONSTANT = {
    4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
};

static const int8_t gru1_recurrent_codes[48] QG_CONSTANT = {
    -9, -103, -34, 127, 77, 15, -128, -55, 67, 104, 127, -127, -20, -53, -128, -48, -128, 101, 34, -46, 5, 30, 127, 56,
    127, 41, 109, 120, 108, 4, 127, -45, 96, -18, -45, 127, -49, 21, -128, -84, -34, -101, 127, -74, -69, 62, 39, -128,
};

static const uint16_t gru1_recurrent_multipliers[12] QG_CONSTANT = {
    23440, 18699, 17542, 24097, 29016, 28926, 25233, 18175, 31234, 17309, 20281, 18990,
};

static const uint8_t gru1_recurrent_shifts[12] QG_CONSTANT = {
    7, 6, 6, 5, 6, 6, 6, 6, 6, 6, 6, 5,
};

static const int32_t gru1_bias[12] QG_CONSTANT = {
    -9222, 16415, -12469, -4495, -3758, -36821, -14407, 12782, 23940, -1037, -1503, 9383,
};

/* GRU order: 3 inputs, 5 units, reset after, gates sigmoid, candidate linear */
static const int8_t gru2_input_codes[45] QG_CONSTANT = {
    -128, -81, 99, 110, -128, 46, -12, -128, -28, -128, 28, 11, -128, -61, -72, 68, 127, 126, -128, -114, -97, 127, 43,
    -68, -128, -111, 3, -104, -1, 127, -22, 72, -128, 49, 40, -128, 127, -1, -63, -27, 89, -128, 20, -128, 30,
};

static const uint16_t gru2_input_multipliers[15] QG_CONSTANT = {
    31833, 21230, 23899, 28936, 27804, 25651, 23291, 18797, 30354, 17801, 19947, 24207, 18214, 18008, 25216,
};

static const uint8_t gru2_input_shifts[15] QG_CONSTANT = {
    6, 5, 5, 7, 8, 6, 6, 5, 6, 5, 5, 6, 5, 5, 6,
};

static const int8_t gru2_recurrent_codes[75] QG_CONSTANT = {
    -88, -12, 127, 7, 92, 127, 74, 41, 8, 116, 83, 127, 121, -68, 20, 44, 109, 95, -128, 25, -128, -36, -69, -46, 118,
    -41, -38, 9, 80, -128, 127, -60, -78, 10, 52, 127, 42, -28, -10, -45, 49, 62, -26, 85, -128, -38, -73, -47, -128,
    73, -77, -11, 93, 127, 93, -128, -18, -21, -40, -46, -46, 46, -38, -109, -128, 10, -128, 51, -37, -38, 15, -26, 49,
    -91, -128,
};

static const uint16_t gru2_recurrent_multipliers[15] QG_CONSTANT = {
    20086, 18460, 24330, 18768, 22422, 22319, 21466, 17870, 22236, 21584, 21104, 29436, 20896, 22782, 23951,
};

static const uint8_t gru2_recurrent_shifts[15] QG_CONSTANT = {
    9, 9, 8, 8, 8, 8, 8, 7, 8, 8, 8, 8, 8, 8, 8,
};

static const int32_t gru2_bias[15] QG_CONSTANT = {
    3209, 264, -4267, 2777, -2321, 3372, 2984, 1428, -12, -1428, 1569, -645, 1798, -476, -2593,
};

static const int32_t gru2_recurrent_bias[5] QG_CONSTANT = {
    -4618, 4919, -24771, 16568, 26614,
};

/* GRU sense forward: 5 inputs, 9 units, reset before, gates sigmoid, candidate tanh */
static const int8_t gru3_input_codes[135] QG_CONSTANT = {
    68, 61, -66, 37, 46, -15, -82, 17, 127, 59, 54, 9, -17, 127, -24, 24, 50, -128, -22, -128, 0, -11, -96, 127, -19,
    3, 127, -63, 8, -102, -60, -114, -75, 55, -109, -58, 127, -52, 127, 40, -47, -2, -69, 13, 127, 53, 65, 127, 127,
    107, -128, 33, 127, 11, 127, -120, 50, 32, -32, 73, -34, 36, 30, 8, 101, 88, 19, -10, 53, -52, -38, 64, -65, -128,
    -7, 90, -65, -128, 4, -105, 14, -6, -81, 127, -9, 127, -12, -53, -70, 61, 127, 127, 117, -122, -11, 33, 76, 127,
    73, -58, 51, 126, 63, -13, 79, -102, -18, 55, 7, -128, -25, -13, -110, -37, 63, -35, 127, -120, -128, -128, -96,
    -112, 75, -47, 16, -58, -40, -41, -128, -124, -14, 97, -62, 127, -6,
};

static const uint16_t gru3_input_multipliers[27] QG_CONSTANT = {
    20643, 16976, 19489, 24489, 17214, 25846, 25472, 24224, 16471, 19173, 27042, 32575, 27816, 24233, 26157, 30328,
    16476, 28425, 21354, 19387, 17985, 24264, 23833, 31948, 25409, 24689, 30942,
};

static const uint8_t gru3_input_shifts[27] QG_CONSTANT = {
    8, 8, 8, 8, 7, 8, 8, 8, 8, 7, 8, 9, 8, 8, 8, 9, 8, 9, 8, 8, 8, 9, 8, 9, 9, 9, 9,
};

static const int8_t gru3_recurrent_codes[243] QG_CONSTANT = {
    37, -12, 56, 111, -128, -22, 1, 55, 127, -67, -8, -91, -22, 114, -95, 74, 116, -87, 127, -128, -42, -37, -68, -54,
    15, 114, -99, 36, 33, 127, 39, 76, 4, -128, 9, 83, -49, -94, -61, -53, -8, -38, -93, 15, 120, 10, 127, -9, 37, -51,
    17, 35, 37, -5, 127, 127, -96, -41, 85, -4, -25, -79, -37, -8, -36, -92, -83, -57, 39, -28, 29, -97, -34, 20, -46,
    -59, 9, -57, 127, -40, 42, -128, 56, 3, 30, 71, 112, -16, -37, -29, -33, 81, 7, 51, -109, 2, -34, 72, -11, 50, -24,
    -62, -93, 9, 127, 47, 42, -37, 41, -15, -114, -18, -26, 57, 32, -6, -45, 4, -78, -115, 106, -50, 127, 14, 95, -94,
    74, -24, 74, 17, -3, 127, -128, -39, -89, 127, 67, -17, 71, -56, -95, -101, -128, -88, 59, -123, -5, 18, 8, 127,
    103, -84, 33, 34, 78, -128, 24, 75, -41, -2, 55, -111, 36, -39, 13, -49, -54, -116, 4, -128, -128, -88, -64, -49,
    -128, -40, -128, -80, 28, 99, -128, -128, 4, -69, 20, -66, 45, -128, 42, -23, 70, -86, 100, -19, 29, -53, -75, -12,
    101, -108, -58, 114, -119, 115, 8, -36, 14, 31, 36, 3, 1, 38, -69, 33, -107, 55, -39, 11, -74, 92, 40, -5, -29,
    127, 37, 16, 36, -105, 41, 0, 12, -29, 53, -58, 51, 24, 37, 12, -65, 25, -30, -43, 127,
};

static const uint16_t gru3_recurrent_multipliers[27] QG_CONSTANT = {
    32749, 19116, 23014, 30027, 28183, 19011, 21004, 16525, 27785, 19145, 17169, 22443, 17135, 31064, 25916, 32176,
    18474, 26533, 28491, 31910, 23211, 17472, 19959, 32203, 22854, 19150, 17767,
};

static const uint8_t gru3_recurrent_shifts[27] QG_CONSTANT = {
    9, 9, 9, 10, 9, 9, 9, 9, 9, 9, 8, 9, 8, 10, 11, 10, 9, 9, 10, 10, 9, 8, 9, 10, 9, 9, 8,
};

static const int32_t gru3_bias[27] QG_CONSTANT = {
    1503, -691, 1359, 1813, 358, -659, 1613, 1241, 1123, -2765, 720, 3378, -1797, -678, -1307, -835, -255, 3322, -518,
    2632, -1580, 1040, -94, -701, 464, 2211, 656,
};

static const int16_t gru3_initial_state[9] QG_CONSTANT = {
    -29384, -23774, 12663, -21447, 11828, 6666, -13752, 30650, -25557,
};

/* GRU sense backward: 5 inputs, 9 units, reset before, gates hard_sigmoid, candidate tanh */
static const int8_t gru4_input_codes[135] QG_CONSTANT = {
    101, -24, -77, 127, 8, 120, -1, 119, 13, -128, 73, 53, -40, -47, -64, -1, 74, -100, 26, 25, -31, -128, 127, 12, 63,
    -104, 127, -32, -128, 71, 89, 127, 127, 123, 23, 58, 79, 116, 103, 54, 123, -128, -75, 29, 23, -101, -8, -20, -16,
    -93, 127, 127, -42, -83, -34, 51, -128, -26, 37, -69, 12, -79, -128, -2, -43, -117, -6, 3, -23, 53, 9, -20, 3, 71,
    83, -60, 127, -128, 74, -128, 5, -128, -45, -82, 4, -128, -37, -16, 12, 25, -128, 102, -5, 13, 5, -108, 121, 78,
    11, 81, -41, 88, -44, 86, 0, 96, -88, 127, -46, -94, 37, -8, -57, -25, -1, -79, 24, 116, -128, -50, 99, 88, -36,
    -56, 127, 127, 14, -128, -128, 127, -124, -116, 127, 118, -126,
};

static const uint16_t gru4_input_multipliers[27] QG_CONSTANT = {
    22273, 30610, 17139, 29324, 25253, 16453, 17133, 27012, 17056, 19245, 20197, 22957, 27678, 32446, 17823, 32190,
    24173, 17769, 18126, 18943, 27642, 27639, 23331, 28990, 18776, 21812, 21159,
};

static const uint8_t gru4_input_shifts[27] QG_CONSTANT = {
    8, 9, 7, 8, 7, 7, 7, 7, 6, 7, 6, 7, 7, 8, 6, 8, 7, 6, 8, 8, 8, 8, 8, 8, 8, 8, 9,
};

static const int8_t gru4_recurrent_codes[243] QG_CONSTANT = {
    -128, -24, 16, -81, -5, -128, -26, 1, -64, 42, -74, 39, -59, -122, 0, -4, 50, 68, -102, 9, 104, -71, 99, 71, -21,
    -128, -24, 13, 63, 87, -90, -128, -39, -41, -97, 59, 62, -67, 18, -38, 15, 116, 121, -63, 43, -31, 11, 35, -72, 13,
    60, -79, -18, -51, -4, 25, 90, 76, 105, -53, 127, 5, 59, -80, -80, 16, -128, 127, 59, 127, 127, 121, -123, -75,
    -109, 43, 89, -10, 127, -44, 11, 14, -78, -56, 2, -44, -71, -56, 46, -1, 127, -48, -128, 127, 52, -100, 127, 12,
    48, -52, 65, 124, 16, -107, -65, -62, 22, -70, 12, 18, 118, 70, 59, -128, 11, 93, -30, 15, 23, -24, 103, -33, -40,
    66, 68, 108, -61, 127, -8, -23, -8, 33, -120, 40, -90, -27, -24, -14, 72, -59, -33, -64, 127, -18, 82, -64, 64,
    127, 35, -15, 108, -15, -39, -13, -53, -27, 20, 26, -10, 9, -74, 127, -66, -63, -2, -3, -9, -87, 68, 83, 36, -67,
    -21, 127, 39, -128, 13, 5, -48, 29, -2, 71, -39, 119, -118, 17, 2, -34, 127, -73, -15, -93, 127, -13, -128, 41, 12,
    23, 9, 61, 96, -77, -43, 20, 1, 112, -128, 11, 87, 51, -78, -32, 0, -35, -15, -102, -62, 127, 22, -19, -37, 10, 5,
    -64, -34, -14, 7, -128, 123, -20, 19, -107, -39, -49, -56, -53, -125, -43, -27, -128, 38, -37, -98,
};

static const uint16_t gru4_recurrent_multipliers[27] QG_CONSTANT = {
    20625, 29558, 19701, 27396, 23006, 31956, 28834, 30619, 30712, 27191, 26589, 16676, 32616, 26894, 20274, 24257,
    23493, 28103, 26128, 24319, 19300, 16815, 17064, 24556, 24437, 29748, 19517,
};

static const uint8_t gru4_recurrent_shifts[27] QG_CONSTANT = {
    7, 9, 8, 8, 8, 9, 8, 9, 9, 8, 8, 8, 8, 8, 8, 8, 8, 8, 9, 9, 9, 9, 8, 10, 9, 9, 9,
};

static const int32_t gru4_bias[27] QG_CONSTANT = {
    159, 5266, 4626, 3786, 3784, 3316, 2507, 3014, 6765, -1121, 2841, -4304, 2335, 4724, -953, 5794, -2912, 5253, -311,
    715, -538, 1131, -167, 1943, 127, 519, -320,
};

/* Dense narrow: 8 inputs, 3 outputs, relu */
static const int8_t dense0_codes[24] QG_CONSTANT = {
    15, 44, -71, 3, 44, 51, -128, 70, 7, 9, -89, 3, -80, -128, 6, 1, 4, 10, 1, 56, 42, 82, 127, 40,
};

static const uint16_t dense0_multipliers[3] QG_CONSTANT = {
    25190, 20506, 21138,
};

static const uint8_t dense0_shifts[3] QG_CONSTANT = {
    9, 8, 8,
};

static const int32_t dense0_bias[3] QG_CONSTANT = {
    1707, 3978, -1706,
};

/* Dense hidden: 9 inputs, 6 outputs, relu */
static const int8_t dense1_codes[54] QG_CONSTANT = {
    41, -35, -16, -114, -35, -29, -8, 8, -128, 47, 127, 5, -106, 47, 3, -9, 12, 4, -15, 58, 30, -24, 72, 124, 127, -85,
    13, 64, 22, -3, 113, 39, 51, -128, -121, -37, 21, 77, -52, 127, 21, -28, 68, 116, 13, 21, 55, 127, -18, 9, 38, -7,
    65, -89,
};

static const uint16_t dense1_multipliers[6] QG_CONSTANT = {
    24442, 18793, 22433, 23001, 27620, 28785,
};

static const uint8_t dense1_shifts[6] QG_CONSTANT = {
    7, 6, 7, 7, 7, 8,
};

static const int32_t dense1_bias[6] QG_CONSTANT = {
    -15285, -3624, -2453, 15947, 9197, 3693,
};

/* Dense class: 6 inputs, 3 outputs, linear */
static const int8_t dense2_codes[18] QG_CONSTANT = {
    -49, -128, -70, 62, -11, -114, 12, -33, 25, 100, 47, -128, 84, -37, 22, 27, 20, -128,
};

static const uint16_t dense2_multipliers[3] QG_CONSTANT = {
    18215, 20003, 28594,
};

static const uint8_t dense2_shifts[3] QG_CONSTANT = {
    6, 5, 6,
};

static const int32_t dense2_bias[3] QG_CONSTANT = {
    5270, -3687, -3642,
};

static const qg_kind kinds[] = {
    QG_EMBEDDING, QG_BIDIRECTIONAL, QG_DENSE, QG_REVERSE, QG_GRU, QG_BIDIRECTIONAL, QG_DENSE, QG_DENSE,
};

static const qg_gru grus[] = {
    {qg_gru_reset_after,
     qg_sigmoid,
     qg_tanh,
     {gru0_input_codes, &in_bytes, gru0_input_multipliers, gru0_input_shifts, 12, 5, 0, 0},
     {gru0_recurrent_codes, &in_bytes, gru0_recurrent_multipliers, gru0_recurrent_shifts, 12, 4, 0, 0},
     gru0_bias,
     gru0_recurrent_bias,
     NULL,
     4,
     0,
     15,
     QG_GATE_SIGMOID,
     QG_CANDIDATE_TANH,
     0},
    {qg_gru_reset_before,
     qg_sigmoid,
     qg_tanh,
     {gru1_input_codes, &in_bytes, gru1_input_multipliers, gru1_input_shifts, 12, 5, 0, 0},
     {gru1_recurrent_codes, &in_bytes, gru1_recurrent_multipliers, gru1_recurrent_shifts, 12, 4, 0, 0},
     gru1_bias,
     NULL,
     NULL,
     4,
     0,
     15,
     QG_GATE_SIGMOID,
     QG_CANDIDATE_TANH,
     0},
    {qg_gru_reset_after,
     qg_sigmoid,
     qg_linear,
     {gru2_input_codes, &in_bytes, gru2_input_multipliers, gru2_input_shifts, 15, 3, 0, 0},
     {gru2_recurrent_codes, &in_bytes, gru2_recurrent_multipliers, gru2_recurrent_shifts, 15, 5, 0, 0},
     gru2_bias,
     gru2_recurrent_bias,
     NULL,
     5,
     0,
     14,
     QG_GATE_SIGMOID,
     QG_CANDIDATE_LINEAR,
     0},
    {qg_gru_reset_before,
     qg_sigmoid,
     qg_tanh,
     {gru3_input_codes, &in_bytes, gru3_input_multipliers, gru3_input_shifts, 27, 5, 0, 0},
     {gru3_recurrent_codes, &in_bytes, gru3_recurrent_multipliers, gru3_recurrent_shifts, 27, 9, 0, 0},
     gru3_bias,
     NULL,
     gru3_initial_state,
     9,
     0,
     15,
     QG_GATE_SIGMOID,
     QG_CANDIDATE_TANH,
     0},
    {qg_gru_reset_before,
     qg_hard_sigmoid,
     qg_tanh,
     {gru4_input_codes, &in_bytes, gru4_input_multipliers, gru4_input_shifts, 27, 5, 0, 0},
     {gru4_recurrent_codes, &in_bytes, gru4_recurrent_multipliers, gru4_recurrent_shifts, 27, 9, 0, 0},
     gru4_bias,
     NULL,
     NULL,
     9,
     0,
     15,
     QG_GATE_HARD_SIGMOID,
     QG_CANDIDATE_TANH,
     0},
};

static const qg_dense dense[] = {
    {qg_relu,
     {dense0_codes, &in_bytes, dense0_multipliers, dense0_shifts, 3, 8, 0, 0},
     dense0_bias,
     QG_ACTIVATION_RELU,
     11},
    {qg_relu,
     {dense1_codes, &in_bytes, dense1_multipliers, dense1_shifts, 6, 9, 0, 0},
     dense1_bias,
     QG_ACTIVATION_RELU,
     13},
    {qg_linear,
     {dense2_codes, &in_bytes, dense2_multipliers, dense2_shifts, 3, 6, 0, 0},
     dense2_bias,
     QG_ACTIVATION_LINEAR,
     12},
};

static const qg_embedding embedding = {embedding_codes, 11, 5};

static const qg_bidirectional bidirectionals[] = {
    {NULL, QG_MERGE_CONCAT, 0},
    {qg_merge_product, QG_MERGE_MUL, 1},
};

const qg_model phrase_descriptor = {
    NULL,
    kinds,
    grus,
    dense,
    dense + 1,
    &embedding,
    bidirectionals,
    phrase_input_fraction_bits,
    digest,
    8,
    5,
    2,
    1,
    PHRASE_OUTPUT_FRACTION_BITS,
    PHRASE_INPUTS,
    PHRASE_UNITS,
    PHRASE_OUTPUTS,
};

#ifdef __AVR__

const qg_model *phrase_model(void);

const qg_model *phrase_model(void)
{
    return &phrase_descriptor;
}

#endif

int16_t phrase_input_from_counts(uint16_t feature, int32_t counts)
{
    return qg_input_from_counts(counts, QG_READ_S8(phrase_input_fraction_bits + feature));
}
