#include "../riscv/virt.h"

#define PORT_TARGET "riscv-rv32ec"
#define PORT_MODEL_BYTES 1048576
