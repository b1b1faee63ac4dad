#include "harness.h"

static harness the_harness; /* not on the stack: it holds the buffers */

int main(void)
{
    port_init();
    harness_init(&the_harness);
    for (;;) {
        harness_take(&the_harness, port_read_byte());
    }
}
