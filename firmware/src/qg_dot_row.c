/* The exact dot product of a row that lies by itself. */
#include "quantgru.h"

#if QG_KERNELS != QG_KERNELS_AVR

#define DOT_ROW(name, code_type, READ)                                                                                 \
    QG_KERNEL int32_t name(const int8_t *bytes, uint16_t n_columns, const int16_t *x)                                  \
    {                                                                                                                  \
        const code_type *codes = (const code_type *)(const void *)bytes;                                               \
        const int16_t *const end = x + n_columns;                                                                      \
        int32_t acc = 0;                                                                                               \
        while (x != end) {                                                                                             \
            acc += (int32_t)READ(codes) * *x;                                                                          \
            ++codes;                                                                                                   \
            ++x;                                                                                                       \
        }                                                                                                              \
        return acc;                                                                                                    \
    }

DOT_ROW(qg_dot_row, int8_t, QG_READ_S8)
DOT_ROW(qg_dot_row_16, int16_t, QG_READ_S16)

#endif
