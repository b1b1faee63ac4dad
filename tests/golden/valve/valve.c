/* valve: constants and descriptors, exported by quantgru. Digest 841279d2fc96af444b99d683eb88099a1b7596ad9c014e4d15b12bb27de94ed3 */
#include "valve.h"

const int8_t valve_input_fraction_bits[VALVE_INPUTS] QG_CONSTANT = VALVE_INPUT_FRACTION_BITS;

static const uint8_t digest[32] QG_CONSTANT = {
    132, 18, 121, 210, 252, 150, 175, 68, 75, 153, 214, 131, 235, 136, 9, 154, 27, 117, 150, 173, 156, 1, 78, 77, 21,
    177, 43, 178, 125, 233, 78, 211,
};

static const qg_packing in_bytes = {qg_affine_bytes, NULL};

/* GRU flow: 3 inputs, 9 units, reset after, gates hard_sigmoid, candidate relu */
static const int8_t gru0_input_codes[81] QG_CONSTANT = {
    8, 127, 127, 6, -24, -72, 17, 19, -123, 2, 39, -86, 127, -85, 127, 127, -128, 38, -6, 127, -25, 127, -51, -16, 43,
    127, 45, -34, 43, 127, -128, -18, 16, 127, -52, -109, 127, 36, 52, -128, -128, -59, 79, 127, -48, 3, -69, -39, 8,
    -119, -128, -92, -128, 44, -4, 17, 9, 66, 64, -31, 35, 62, -69, -128, 58, -128, 127, 127, 29, -55, 127, -85, -128,
    -74, -6, -107, 127, 127, -128, 92, -76,
};

static const uint16_t gru0_input_multipliers[27] QG_CONSTANT = {
    31464, 28052, 16765, 28914, 23287, 16532, 18118, 25602, 20766, 31615, 16653, 24023, 23641, 21267, 16395, 17525,
    20114, 21989, 26951, 17591, 17592, 18001, 22471, 16750, 26668, 32475, 29533,
};

static const uint8_t gru0_input_shifts[27] QG_CONSTANT = {
    9, 8, 7, 9, 8, 9, 8, 8, 8, 8, 8, 8, 9, 8, 8, 9, 8, 10, 11, 11, 11, 11, 11, 11, 12, 13, 12,
};

static const int8_t gru0_recurrent_codes[243] QG_CONSTANT = {
    -119, 56, 15, 13, 45, -128, -12, -47, -48, 17, 11, 113, 66, 27, 3, -31, 6, -128, 91, 14, 31, -8, -39, 43, 93, -60,
    -22, -41, 13, -2, 65, -10, -28, 9, -18, 127, -6, 7, 87, 76, 96, -83, 127, -29, 36, 37, 101, 127, 127, -41, -82,
    -11, -128, 30, 127, -33, -14, -104, 46, 16, -5, -67, 100, 75, -128, 24, -83, -72, 10, -8, -31, -30, -85, -86, -22,
    -128, 34, 102, -79, -23, 104, 17, -19, -128, 26, -55, -47, 88, 17, 9, 106, -80, 93, -20, -8, -128, 75, -12, 37, 77,
    19, -128, 127, 82, -27, 49, -93, 15, -52, 24, -43, -110, -18, 16, 21, -84, 127, 32, 17, 38, 112, -52, 87, -107,
    -77, 47, -83, -65, -118, -116, -66, 34, -8, -67, -56, -36, -64, -128, -37, 89, -5, 17, -69, -46, -14, 31, 127, 61,
    89, -64, -16, 125, 127, -49, 59, 120, -20, -15, 127, -45, -83, 62, -39, -104, -39, -36, -17, -2, 127, -118, 91,
    -43, 20, 127, -101, -107, -19, -117, 37, 62, -76, -34, 7, -33, 18, 127, -127, -128, -72, 16, -81, -37, 57, -111,
    18, -54, -82, -61, -12, 46, 9, 36, -1, -61, -71, -12, 127, 68, -9, 23, -49, -126, -128, -23, 75, 33, 44, 16, 77,
    -34, -97, -5, 86, -55, 1, -51, -128, -97, 6, 51, 42, 127, 18, 74, 32, -31, -128, -21, -54, -114, 35, 53, 76,
};

static const uint16_t gru0_recurrent_multipliers[27] QG_CONSTANT = {
    25763, 27725, 26685, 31497, 20645, 26025, 25175, 21803, 24892, 17575, 23000, 22891, 26842, 23337, 17077, 29133,
    23749, 21747, 23565, 20572, 21166, 21361, 20781, 24446, 18757, 23001, 18445,
};

static const uint8_t gru0_recurrent_shifts[27] QG_CONSTANT = {
    6, 5, 5, 5, 4, 5, 5, 5, 5, 4, 5, 5, 5, 5, 5, 6, 5, 5, 8, 8, 8, 7, 8, 8, 8, 8, 8,
};

static const int32_t gru0_bias[27] QG_CONSTANT = {
    412, -730, 3754, 2693, 7578, 1849, -3140, 3283, 7855, 848, -479, -1861, 6495, -478, -729, 1100, -4576, -754, -504,
    -41, 223, 400, -154, 356, -141, -659, 256,
};

static const int32_t gru0_recurrent_bias[9] QG_CONSTANT = {
    -6198, -5474, 5, -93, 3569, 4048, -3823, -636, -4646,
};

static const int16_t gru0_initial_state[9] QG_CONSTANT = {
    14162, 6068, 14546, 14569, 4658, -1905, 3133, 13056, 4847,
};

/* GRU level: 4 inputs, 3 units, reset before, gates hard_sigmoid, candidate hard_tanh */
static const int8_t gru1_input_codes[36] QG_CONSTANT = {
    -89, -127, 24, 127, 127, -33, -46, 70, 23, -56, 127, -5, -29, -77, -128, 40, -40, 127, 23, -5, -73, 44, 127, 41,
    -82, -9, -128, 124, 127, 51, 64, -73, -4, 127, 8, 83,
};

static const uint16_t gru1_input_multipliers[9] QG_CONSTANT = {
    29135, 27618, 22202, 20335, 17152, 29628, 20851, 20966, 28271,
};

static const uint8_t gru1_input_shifts[9] QG_CONSTANT = {
    5, 3, 3, 4, 2, 4, 3, 4, 4,
};

static const int8_t gru1_recurrent_codes[27] QG_CONSTANT = {
    98, 101, 127, 127, -20, 87, -128, -88, -114, 92, -17, 127, -111, 63, -128, 127, -58, 59, -113, -128, 73, -124, -83,
    127, -94, 127, -100,
};

static const uint16_t gru1_recurrent_multipliers[9] QG_CONSTANT = {
    22642, 30406, 17745, 17773, 27084, 16456, 16806, 21589, 24791,
};

static const uint8_t gru1_recurrent_shifts[9] QG_CONSTANT = {
    10, 9, 9, 8, 9, 8, 9, 8, 9,
};

static const int32_t gru1_bias[9] QG_CONSTANT = {
    -5009, -1147, 3361, 376, -737, 3229, -1987, 2737, 1312,
};

/* GRU trend: 3 inputs, 2 units, reset after, gates sigmoid, candidate sigmoid */
static const int8_t gru2_input_codes[18] QG_CONSTANT = {
    127, -14, 24, -22, -128, 113, -128, 89, -61, -128, 98, 46, 127, 2, 16, 19, -14, 127,
};

static const uint16_t gru2_input_multipliers[6] QG_CONSTANT = {
    32635, 26601, 23715, 24339, 25643, 18662,
};

static const uint8_t gru2_input_shifts[6] QG_CONSTANT = {
    10, 10, 10, 10, 9, 9,
};

static const int8_t gru2_recurrent_codes[12] QG_CONSTANT = {
    127, 62, -128, 78, 59, -128, -128, 87, 127, 41, 38, 127,
};

static const uint16_t gru2_recurrent_multipliers[6] QG_CONSTANT = {
    21144, 23825, 18168, 18975, 17225, 24608,
};

static const uint8_t gru2_recurrent_shifts[6] QG_CONSTANT = {
    7, 8, 9, 7, 7, 7,
};

static const int32_t gru2_bias[6] QG_CONSTANT = {
    3340, 534, -4501, 1342, 421, 1294,
};

static const int32_t gru2_recurrent_bias[2] QG_CONSTANT = {
    -14927, 17019,
};

static const int16_t gru2_initial_state[2] QG_CONSTANT = {
    4096, -24576,
};

/* Dense mix: 2 inputs, 5 outputs, tanh */
static const int8_t dense0_codes[10] QG_CONSTANT = {
    -5, -128, -15, -128, -49, -128, -4, 127, 3, 127,
};

static const uint16_t dense0_multipliers[5] QG_CONSTANT = {
    21900, 23044, 24760, 29513, 22991,
};

static const uint8_t dense0_shifts[5] QG_CONSTANT = {
    1, 3, 4, 2, 1,
};

static const int32_t dense0_bias[5] QG_CONSTANT = {
    12624, -837, 14086, 24709, -10636,
};

/* Dense shape: 5 inputs, 3 outputs, sigmoid */
static const int8_t dense1_codes[15] QG_CONSTANT = {
    54, -4, 127, -74, -27, 28, 20, -128, 28, -9, -17, -11, 15, -128, 109,
};

static const uint16_t dense1_multipliers[3] QG_CONSTANT = {
    23780, 26861, 29760,
};

static const uint8_t dense1_shifts[3] QG_CONSTANT = {
    6, 6, 6,
};

static const int32_t dense1_bias[3] QG_CONSTANT = {
    -14117, -36716, -1333,
};

/* Dense narrow: 9 inputs, 4 outputs, relu */
static const int8_t dense2_codes[36] QG_CONSTANT = {
    -8, 8, -128, 14, 15, 16, 55, -15, 111, 42, 33, -128, -100, 84, 25, 54, -15, -1, 61, -62, 127, -89, 29, -14, 42,
    122, -89, 50, 22, 84, 10, -30, 55, 127, 83, 26,
};

static const uint16_t dense2_multipliers[4] QG_CONSTANT = {
    21047, 19837, 23601, 24410,
};

static const uint8_t dense2_shifts[4] QG_CONSTANT = {
    6, 6, 7, 7,
};

static const int32_t dense2_bias[4] QG_CONSTANT = {
    603, -1445, -405, -104,
};

/* Dense a: 2 inputs, 4 outputs, tanh */
static const int8_t dense3_codes[8] QG_CONSTANT = {
    -59, -128, 127, -41, 50, 127, 19, -128,
};

static const uint16_t dense3_multipliers[4] QG_CONSTANT = {
    29392, 20235, 17061, 21959,
};

static const uint8_t dense3_shifts[4] QG_CONSTANT = {
    5, 5, 5, 4,
};

static const int32_t dense3_bias[4] QG_CONSTANT = {
    10961, -6472, -1973, 8394,
};

/* Dense b: 4 inputs, 3 outputs, linear */
static const int8_t dense4_codes[12] QG_CONSTANT = {
    -100, -13, -128, -35, 83, -16, -45, 127, -29, -128, 90, 19,
};

static const uint16_t dense4_multipliers[3] QG_CONSTANT = {
    28620, 20697, 25470,
};

static const uint8_t dense4_shifts[3] QG_CONSTANT = {
    7, 8, 7,
};

static const int32_t dense4_bias[3] QG_CONSTANT = {
    6616, -3236, -3477,
};

/* Dense opening: 3 inputs, 1 outputs, linear */
static const int8_t dense5_codes[3] QG_CONSTANT = {
    -49, -128, -32,
};

static const uint16_t dense5_multipliers[1] QG_CONSTANT = {
    31525,
};

static const uint8_t dense5_shifts[1] QG_CONSTANT = {
    5,
};

static const int32_t dense5_bias[1] QG_CONSTANT = {
    -5013,
};

static const qg_kind kinds[] = {
    QG_REVERSE, QG_DENSE, QG_DENSE, QG_GRU, QG_DENSE, QG_GRU, QG_GRU, QG_DENSE, QG_DENSE, QG_DENSE,
};

static const qg_gru grus[] = {
    {qg_gru_reset_after,
     qg_hard_sigmoid,
     qg_relu,
     {gru0_input_codes, &in_bytes, gru0_input_multipliers, gru0_input_shifts, 27, 3, 0, 0},
     {gru0_recurrent_codes, &in_bytes, gru0_recurrent_multipliers, gru0_recurrent_shifts, 27, 9, 0, 0},
     gru0_bias,
     gru0_recurrent_bias,
     gru0_initial_state,
     9,
     0,
     12,
     QG_GATE_HARD_SIGMOID,
     QG_CANDIDATE_RELU,
     0},
    {qg_gru_reset_before,
     qg_hard_sigmoid,
     qg_linear,
     {gru1_input_codes, &in_bytes, gru1_input_multipliers, gru1_input_shifts, 9, 4, 0, 0},
     {gru1_recurrent_codes, &in_bytes, gru1_recurrent_multipliers, gru1_recurrent_shifts, 9, 3, 0, 0},
     gru1_bias,
     NULL,
     NULL,
     3,
     0,
     15,
     QG_GATE_HARD_SIGMOID,
     QG_CANDIDATE_HARD_TANH,
     0},
    {qg_gru_reset_after,
     qg_sigmoid,
     qg_signed_sigmoid,
     {gru2_input_codes, &in_bytes, gru2_input_multipliers, gru2_input_shifts, 6, 3, 0, 0},
     {gru2_recurrent_codes, &in_bytes, gru2_recurrent_multipliers, gru2_recurrent_shifts, 6, 2, 0, 0},
     gru2_bias,
     gru2_recurrent_bias,
     gru2_initial_state,
     2,
     2,
     13,
     QG_GATE_SIGMOID,
     QG_CANDIDATE_SIGMOID,
     0},
};

static const qg_dense dense[] = {
    {qg_tanh,
     {dense0_codes, &in_bytes, dense0_multipliers, dense0_shifts, 5, 2, 2, 0},
     dense0_bias,
     QG_ACTIVATION_TANH,
     15},
    {qg_signed_sigmoid,
     {dense1_codes, &in_bytes, dense1_multipliers, dense1_shifts, 3, 5, 0, 0},
     dense1_bias,
     QG_ACTIVATION_SIGMOID,
     15},
    {qg_relu,
     {dense2_codes, &in_bytes, dense2_multipliers, dense2_shifts, 4, 9, 0, 0},
     dense2_bias,
     QG_ACTIVATION_RELU,
     10},
    {qg_tanh,
     {dense3_codes, &in_bytes, dense3_multipliers, dense3_shifts, 4, 2, 0, 0},
     dense3_bias,
     QG_ACTIVATION_TANH,
     15},
    {qg_linear,
     {dense4_codes, &in_bytes, dense4_multipliers, dense4_shifts, 3, 4, 0, 0},
     dense4_bias,
     QG_ACTIVATION_LINEAR,
     13},
    {qg_linear,
     {dense5_codes, &in_bytes, dense5_multipliers, dense5_shifts, 1, 3, 0, 0},
     dense5_bias,
     QG_ACTIVATION_LINEAR,
     13},
};

const qg_model valve_descriptor = {
    qg_step_layers,
    kinds,
    grus,
    dense,
    dense + 3,
    NULL,
    NULL,
    valve_input_fraction_bits,
    digest,
    10,
    3,
    3,
    0,
    VALVE_OUTPUT_FRACTION_BITS,
    VALVE_INPUTS,
    VALVE_UNITS,
    VALVE_OUTPUTS,
};

#ifdef __AVR__

const qg_model *valve_model(void);

const qg_model *valve_model(void)
{
    return &valve_descriptor;
}

#endif

qg_scratch valve_scratch_arrays(valve_scratch *scratch)
{
    const qg_scratch arrays = {
        {scratch->u, scratch->r, scratch->n},
        scratch->product,
        {scratch->vectors[0], scratch->vectors[1]},
    };
    return arrays;
}

void valve_reset(valve_state *state)
{
    qg_reset(&valve_descriptor, state->h, state->residual);
}

void valve_step(valve_state *state, valve_scratch *scratch, const int16_t inputs[VALVE_INPUTS])
{
    const qg_scratch arrays = valve_scratch_arrays(scratch);
    qg_step_layers(&valve_descriptor, inputs, state->h, state->residual, &arrays);
}

void valve_output(const valve_state *state, valve_scratch *scratch, int16_t outputs[VALVE_OUTPUTS])
{
    const int16_t *const x = state->h + (VALVE_UNITS - 2); /* of the last GRU layer */
    int16_t *const vectors[2] = {scratch->vectors[0], scratch->vectors[1]};
    qg_head(&valve_descriptor, x, vectors, outputs);
}

uint16_t valve_saturated(const valve_scratch *scratch)
{
    return qg_saturated(&valve_descriptor, scratch->n);
}

int16_t valve_input_from_counts(uint16_t feature, int32_t counts)
{
    return qg_input_from_counts(counts, QG_READ_S8(valve_input_fraction_bits + feature));
}
