#include "fuzz.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

uint32_t fuzz_reached;

static void print_reached(void)
{
    fprintf(stderr, "stat::reached: %" PRIu32 " %s\n", fuzz_reached, fuzz_reached_what);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    atexit(print_reached);
    return 0;
}
