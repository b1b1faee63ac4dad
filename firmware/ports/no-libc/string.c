#include "string.h"

/* The compiler knows these loops: it would put a call of the function in place of the function's body. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    unsigned char *restrict out = to;
    const unsigned char *restrict in = from;
    for (size_t i = 0; i < n; ++i) {
        out[i] = in[i];
    }
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    if (out < in) {
        for (size_t i = 0; i < n; ++i) {
            out[i] = in[i];
        }
    } else {
        while (n-- != 0) {
            out[n] = in[n];
        }
    }
    return to;
}

void *memset(void *to, int value, size_t n)
{
    unsigned char *out = to;
    for (size_t i = 0; i < n; ++i) {
        out[i] = (unsigned char)value;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *left = a;
    const unsigned char *right = b;
    for (size_t i = 0; i < n; ++i) {
        if (left[i] != right[i]) {
            return left[i] < right[i] ? -1 : 1;
        }
    }
    return 0;
}
