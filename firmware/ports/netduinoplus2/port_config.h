#define PORT_TARGET "netduinoplus2"
#define PORT_TIMER_KIND PORT_TIMER_CYCLES
#define PORT_TIMER_HZ 16000000 /* the clock after a reset */
#define PORT_BUFFER_BYTES 1024
#define PORT_RECEIVE_BYTES 0
#define PORT_REPLIES 1
#define PORT_MODEL_BYTES 98304
#define PORT_STACK_LOWEST bss_end
#define PORT_STACK_END stack_top
extern uint8_t bss_end[], stack_top[]; /* symbols of the linker */
