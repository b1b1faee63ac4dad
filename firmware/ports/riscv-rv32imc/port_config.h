#define PORT_TARGET "riscv-rv32imc"
#define PORT_TIMER_KIND PORT_TIMER_INSTRUCTIONS
#define PORT_TIMER_HZ 1000000000 /* of the emulator: one ns an instruction */
#define PORT_BUFFER_BYTES 1024
