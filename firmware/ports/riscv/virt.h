/* What QEMU's RISC-V boards share; the port_config.h of each includes this file. */
#define PORT_TIMER_KIND PORT_TIMER_INSTRUCTIONS
#define PORT_TIMER_HZ 1000000000 /* of the emulator: one ns an instruction */
#define PORT_BUFFER_BYTES 1024
#define PORT_RECEIVE_BYTES 0
#define PORT_REPLIES 1
#define PORT_STACK_LOWEST bss_end
#define PORT_STACK_END stack_top
extern uint8_t bss_end[], stack_top[]; /* symbols of the linker */
