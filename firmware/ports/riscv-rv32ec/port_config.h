#define PORT_TARGET "riscv-rv32ec"
#define PORT_TIMER_KIND PORT_TIMER_INSTRUCTIONS
#define PORT_TIMER_HZ 1000000000 /* of the emulator: one ns an instruction */
#define PORT_BUFFER_BYTES 1024
#define PORT_RECEIVE_BYTES 0
#define PORT_REPLIES 1
#define PORT_MODEL_BYTES 1048576
#define PORT_STACK_LOWEST bss_end
#define PORT_STACK_END stack_top
