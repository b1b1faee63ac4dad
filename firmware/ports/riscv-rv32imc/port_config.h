#include "../riscv/virt.h"

#define PORT_TARGET "riscv-rv32imc"
#define PORT_MODEL_BYTES 1048576
