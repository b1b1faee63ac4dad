/* gesture: constants and descriptors, exported by quantgru. Digest a2ac069ce3377ad99672196cc3c0fba02807c41ac82624753fa46105edbb19e8 */
#include "gesture.h"

const int8_t gesture_input_fraction_bits[GESTURE_INPUTS] QG_CONSTANT = GESTURE_INPUT_FRACTION_BITS;

static const uint8_t digest[32] QG_CONSTANT = {
    162, 172, 6, 156, 227, 55, 122, 217, 150, 114, 25, 108, 195, 192, 251, 160, 40, 7, 196, 26, 200, 38, 36, 117, 63,
    164, 97, 5, 237, 187, 25, 232,
};

static const qg_packing in_bytes = {qg_affine_bytes, NULL};

/* GRU motion: 3 inputs, 9 units, reset after, gates sigmoid, candidate tanh */
static const int8_t gru0_input_codes[81] QG_CONSTANT = {
    -128, 18, 83, -128, -30, 9, -128, -128, 81, -128, -128, -69, -128, -9, -9, -32, 63, -4, -46, -106, 29, -128, 23,
    -70, -121, 127, -103, -6, -128, -128, -128, -51, -128, -44, 74, 127, 101, 6, 57, 127, 6, 127, 127, -89, 62, 121, 8,
    52, 53, -13, -64, 70, -128, 38, -128, 102, -60, -55, 127, -26, -128, -28, -50, 104, 39, -9, -48, 127, 119, -128,
    -18, -128, -128, 127, -58, -38, -43, -1, -60, 127, 76,
};

static const uint16_t gru0_input_multipliers[27] QG_CONSTANT = {
    20332, 24392, 17619, 31150, 16613, 17594, 17652, 25070, 28030, 23367, 29282, 20072, 25349, 26427, 19650, 18044,
    19004, 24291, 19451, 18505, 27857, 17713, 22769, 20127, 19902, 29205, 30811,
};

static const uint8_t gru0_input_shifts[27] QG_CONSTANT = {
    4, 4, 3, 3, 3, 2, 4, 3, 4, 4, 7, 3, 3, 3, 3, 4, 3, 5, 3, 3, 3, 3, 4, 3, 5, 4, 4,
};

static const int8_t gru0_recurrent_codes[243] QG_CONSTANT = {
    -2, -115, -21, -55, -128, 127, -63, 1, 51, -17, -25, 62, 51, -6, -128, -29, -26, -51, 85, 12, -105, -24, 126, -23,
    80, 9, 63, 6, 46, -14, -15, -106, 0, 127, -125, -38, -51, -86, 97, -62, 44, -47, -10, -8, 47, 97, 1, 127, -98, -35,
    4, -128, 8, -48, -70, -52, 26, 12, -128, -72, -92, -5, -33, -81, -128, 28, 32, 23, 75, -70, -56, 26, 102, -106,
    -15, -46, -128, 53, -2, 5, -55, 43, -48, -52, -31, -102, -19, 52, 127, -51, -55, -128, 102, 50, 3, -127, -87, -14,
    68, 88, -84, -62, -67, -84, 56, -105, -33, 90, 58, -1, -118, -128, -6, -116, -16, -13, 33, 51, -13, -114, -1, 127,
    2, 50, 59, -100, -76, 25, -91, -48, 127, 72, 127, -128, -128, -100, -29, 28, 73, 77, 100, 16, 39, 46, 47, -3, 41,
    85, -77, 3, -5, 44, -5, 3, -11, 45, -1, -87, -27, -78, -128, -21, 127, 81, 0, -5, -39, -20, 58, 9, 4, 56, -65, 7,
    -27, -16, 8, -128, -112, 22, 84, -89, -128, 4, -40, -19, -90, -105, 72, -22, 111, 120, -128, -69, 108, 51, -23,
    -15, 68, 44, -8, 71, 15, -69, 38, 99, 65, -5, 101, -62, 5, 110, 19, 28, 47, -46, -45, 46, -5, -128, -128, 0, 8,
    -50, -26, 122, 4, -14, 12, 127, 15, 127, -26, -25, -38, 12, 0, -63, 29, 127, -16, -13, -66,
};

static const uint16_t gru0_recurrent_multipliers[27] QG_CONSTANT = {
    27660, 18534, 17277, 32732, 17438, 23807, 20935, 27314, 28853, 22054, 19428, 22643, 31029, 17285, 26927, 32737,
    16721, 26636, 22022, 20825, 21411, 25248, 29766, 26466, 18171, 26100, 16642,
};

static const uint8_t gru0_recurrent_shifts[27] QG_CONSTANT = {
    6, 5, 6, 6, 5, 6, 6, 6, 6, 6, 6, 6, 6, 5, 6, 7, 5, 5, 6, 6, 5, 6, 6, 6, 6, 6, 5,
};

static const int32_t gru0_bias[27] QG_CONSTANT = {
    5215, -20425, -18128, 20802, -14873, 17764, 24940, 4271, 8968, 31934, -3253, -9752, -22141, 661, 24231, 15715,
    -15478, -14150, -8261, 4790, -3365, 3513, 4862, -4895, -659, 3384, -1375,
};

static const int32_t gru0_recurrent_bias[9] QG_CONSTANT = {
    51, 4855, -4420, -14567, -7425, -16345, 934, 21996, -8035,
};

/* GRU context: 9 inputs, 5 units, reset before, gates sigmoid, candidate tanh */
static const int8_t gru1_input_codes[135] QG_CONSTANT = {
    33, 123, 39, 4, -111, 26, -128, -93, 56, 40, -8, -96, -21, -38, 36, 127, 12, -44, -128, -6, -19, -126, 13, -126,
    122, 116, 119, -42, 46, -12, -34, -30, -115, -128, 70, -17, 16, 74, -128, -58, 13, 29, -28, 76, 16, -82, -63, 54,
    31, -128, 91, 40, 91, -26, -15, -56, 127, -9, 79, -32, 8, -84, -19, 101, -128, 110, 34, -107, -51, -47, -5, -55,
    -69, -25, -86, -108, -4, 74, -128, 0, -54, -83, 72, -44, 127, -66, 33, -19, -64, 50, -18, 71, -6, -128, -12, 6,
    113, -107, -5, -122, 46, -77, -128, -4, 78, -108, -77, -53, -119, 40, -85, -76, 62, -80, 46, -103, -128, -122, 124,
    -21, 16, -2, 11, 3, 127, -69, -128, -83, -110, 61, 67, -79, -114, -29, 114,
};

static const uint16_t gru1_input_multipliers[15] QG_CONSTANT = {
    31895, 18641, 19179, 23657, 28396, 31115, 20947, 20509, 25058, 24742, 17791, 29596, 19860, 31511, 25518,
};

static const uint8_t gru1_input_shifts[15] QG_CONSTANT = {
    6, 5, 6, 6, 6, 6, 5, 6, 6, 6, 6, 6, 6, 6, 6,
};

static const int8_t gru1_recurrent_codes[75] QG_CONSTANT = {
    -128, 24, -49, 47, -49, -24, -128, -83, 118, 70, -27, -59, -128, -27, -2, -10, -11, -128, -8, -4, 88, 127, -9, -52,
    -4, -75, -91, -7, -128, 74, -14, 34, -25, -98, -128, -22, -52, 22, 0, -128, 4, -83, -38, -18, -128, 28, 46, -48,
    -128, -113, -104, -29, -59, 10, -128, 54, 33, -33, -101, 127, -128, 35, 19, 22, 29, -128, -51, 125, 84, 40, -128,
    45, 99, 85, 20,
};

static const uint16_t gru1_recurrent_multipliers[15] QG_CONSTANT = {
    23098, 24679, 31029, 18380, 30826, 17094, 31063, 22321, 17001, 27809, 19729, 18242, 27273, 21419, 24811,
};

static const uint8_t gru1_recurrent_shifts[15] QG_CONSTANT = {
    5, 6, 6, 6, 6, 6, 7, 6, 5, 8, 6, 7, 6, 7, 6,
};

static const int32_t gru1_bias[15] QG_CONSTANT = {
    -25331, 15512, -2242, -41411, 6097, -24594, -21187, -10345, 20915, -6013, 4433, 28560, 26176, -1607, -3994,
};

/* Dense hidden: 5 inputs, 6 outputs, relu */
static const int8_t dense0_codes[30] QG_CONSTANT = {
    -128, -70, 43, 40, 11, 127, -99, -7, 93, 75, 127, 47, -37, 43, -119, -124, 44, -4, 23, -128, -21, -34, -49, -128,
    -19, 127, 54, -85, -2, 107,
};

static const uint16_t dense0_multipliers[6] QG_CONSTANT = {
    20659, 16428, 17685, 27815, 18474, 29635,
};

static const uint8_t dense0_shifts[6] QG_CONSTANT = {
    9, 9, 9, 9, 8, 10,
};

static const int32_t dense0_bias[6] QG_CONSTANT = {
    -5652, -251, 1119, 1390, 3476, 2323,
};

/* Dense class: 6 inputs, 4 outputs, linear */
static const int8_t dense1_codes[24] QG_CONSTANT = {
    44, 42, 110, -76, -6, 127, 127, -10, -3, 13, 87, -2, 127, -84, -16, -17, 68, 90, -127, -77, 28, -55, -128, 87,
};

static const uint16_t dense1_multipliers[4] QG_CONSTANT = {
    29930, 32324, 24264, 24944,
};

static const uint8_t dense1_shifts[4] QG_CONSTANT = {
    6, 5, 5, 5,
};

static const int32_t dense1_bias[4] QG_CONSTANT = {
    1022, 1004, -972, 2104,
};

static const qg_kind kinds[] = {
    QG_GRU, QG_GRU, QG_DENSE, QG_DENSE,
};

static const qg_gru grus[] = {
    {qg_gru_reset_after,
     qg_sigmoid,
     qg_tanh,
     {gru0_input_codes, &in_bytes, gru0_input_multipliers, gru0_input_shifts, 27, 3, 0, 0},
     {gru0_recurrent_codes, &in_bytes, gru0_recurrent_multipliers, gru0_recurrent_shifts, 27, 9, 0, 0},
     gru0_bias,
     gru0_recurrent_bias,
     NULL,
     9,
     0,
     15,
     QG_GATE_SIGMOID,
     QG_CANDIDATE_TANH,
     0},
    {qg_gru_reset_before,
     qg_sigmoid,
     qg_tanh,
     {gru1_input_codes, &in_bytes, gru1_input_multipliers, gru1_input_shifts, 15, 9, 0, 0},
     {gru1_recurrent_codes, &in_bytes, gru1_recurrent_multipliers, gru1_recurrent_shifts, 15, 5, 0, 0},
     gru1_bias,
     NULL,
     NULL,
     5,
     0,
     15,
     QG_GATE_SIGMOID,
     QG_CANDIDATE_TANH,
     0},
};

static const qg_dense dense[] = {
    {qg_relu,
     {dense0_codes, &in_bytes, dense0_multipliers, dense0_shifts, 6, 5, 0, 0},
     dense0_bias,
     QG_ACTIVATION_RELU,
     11},
    {qg_linear,
     {dense1_codes, &in_bytes, dense1_multipliers, dense1_shifts, 4, 6, 0, 0},
     dense1_bias,
     QG_ACTIVATION_LINEAR,
     11},
};

const qg_model gesture_descriptor = {
    qg_step,
    kinds,
    grus,
    dense,
    dense + 0,
    NULL,
    NULL,
    gesture_input_fraction_bits,
    digest,
    4,
    2,
    2,
    1,
    GESTURE_OUTPUT_FRACTION_BITS,
    GESTURE_INPUTS,
    GESTURE_UNITS,
    GESTURE_OUTPUTS,
};

#ifdef __AVR__

const qg_model *gesture_model(void);

const qg_model *gesture_model(void)
{
    return &gesture_descriptor;
}

#endif

qg_scratch gesture_scratch_arrays(gesture_scratch *scratch)
{
    const qg_scratch arrays = {
        {scratch->u, scratch->r, scratch->n},
        scratch->product,
        {scratch->vectors[0], NULL},
    };
    return arrays;
}

void gesture_reset(gesture_state *state)
{
    qg_reset(&gesture_descriptor, state->h, state->residual);
}

void gesture_step(gesture_state *state, gesture_scratch *scratch, const int16_t inputs[GESTURE_INPUTS])
{
    const qg_scratch arrays = gesture_scratch_arrays(scratch);
    qg_step(&gesture_descriptor, inputs, state->h, state->residual, &arrays);
}

void gesture_output(const gesture_state *state, gesture_scratch *scratch, int16_t outputs[GESTURE_OUTPUTS])
{
    const int16_t *const x = state->h + (GESTURE_UNITS - 5); /* of the last GRU layer */
    int16_t *const vectors[2] = {scratch->vectors[0], NULL};
    qg_head(&gesture_descriptor, x, vectors, outputs);
}

int16_t gesture_input_from_counts(uint16_t feature, int32_t counts)
{
    return qg_input_from_counts(counts, QG_READ_S8(gesture_input_fraction_bits + feature));
}
