/* Runs a program on an ATmega in simavr, its USART 0 on a socket. The simulated time is that of the cycles, no more.
 *
 *     simavr_line CORE CLOCK_HZ PROGRAM.elf LISTENING_FD
 *
 * Ends with the first connection, or when the core stops.
 */
#define _POSIX_C_SOURCE 200809L
#include <avr_uart.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sim_avr.h>
#include <sim_elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CYCLES_BETWEEN_LOOKS = 2000 };

typedef struct line {
    int connection;
    avr_irq_t *input;
    int paused; /* by the UART, whose buffer is full */
    unsigned char incoming[4096];
    size_t n_incoming;
    size_t next_incoming;
    unsigned char outgoing[4096];
    size_t n_outgoing;
} line;

static void send_outgoing(line *self)
{
    size_t sent = 0;
    while (sent < self->n_outgoing) {
        const ssize_t n = write(self->connection, self->outgoing + sent, self->n_outgoing - sent);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd end = {self->connection, POLLOUT, 0};
            (void)poll(&end, 1, -1);
        } else if (n < 0) {
            exit(EXIT_SUCCESS);
        } else {
            sent += (size_t)n;
        }
    }
    self->n_outgoing = 0;
}

static void take_output(avr_irq_t *irq, uint32_t value, void *context)
{
    line *const self = context;
    (void)irq;
    if (self->n_outgoing == sizeof self->outgoing) {
        send_outgoing(self);
    }
    self->outgoing[self->n_outgoing++] = (unsigned char)value;
}

static void pause_input(avr_irq_t *irq, uint32_t value, void *context)
{
    (void)irq;
    ((line *)context)->paused = value != 0;
}

static void resume_input(avr_irq_t *irq, uint32_t value, void *context)
{
    (void)irq;
    if (value != 0) {
        ((line *)context)->paused = 0;
    }
}

static void receive(line *self)
{
    if (self->next_incoming == self->n_incoming) {
        const ssize_t n = read(self->connection, self->incoming, sizeof self->incoming);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            exit(EXIT_SUCCESS);
        }
        self->n_incoming = n > 0 ? (size_t)n : 0;
        self->next_incoming = 0;
    }
    while (!self->paused && self->next_incoming < self->n_incoming) {
        avr_raise_irq(self->input, self->incoming[self->next_incoming++]);
    }
}

/* Waits for the client. What is sent to it later goes at once, a byte at a time, if it must. */
static int accept_connection(int listening)
{
    const int at_once = 1;
    const int connection = accept(listening, NULL, NULL);
    if (connection < 0 || fcntl(connection, F_SETFL, O_NONBLOCK) != 0 ||
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once) != 0) {
        perror("connection");
        exit(EXIT_FAILURE);
    }
    return connection;
}

static void connect_uart(line *self, avr_t *avr)
{
    uint32_t flags = 0;
    avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
    flags &= ~(uint32_t)(AVR_UART_FLAG_POOL_SLEEP | AVR_UART_FLAG_STDIO); /* no sleeping, no echo on standard output */
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    avr_irq_t *const uart = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), 0);
    self->input = uart + UART_IRQ_INPUT;
    avr_irq_register_notify(uart + UART_IRQ_OUTPUT, take_output, self);
    avr_irq_register_notify(uart + UART_IRQ_OUT_XON, resume_input, self);
    avr_irq_register_notify(uart + UART_IRQ_OUT_XOFF, pause_input, self);
}

static avr_t *make_core(const char *name, const char *clock, const char *program)
{
    elf_firmware_t firmware;
    memset(&firmware, 0, sizeof firmware);
    avr_t *const avr = avr_make_mcu_by_name(name);
    if (avr == NULL || elf_read_firmware(program, &firmware) != 0) {
        fprintf(stderr, "cannot run %s on an %s\n", program, name);
        exit(EXIT_FAILURE);
    }
    avr_init(avr);
    avr->log = LOG_ERROR;
    firmware.frequency = (uint32_t)strtoul(clock, NULL, 10);
    avr_load_firmware(avr, &firmware);
    return avr;
}

int main(int argc, char **argv)
{
    static line self;
    if (argc != 5) {
        fprintf(stderr, "usage: %s CORE CLOCK_HZ PROGRAM.elf LISTENING_FD\n", argv[0]);
        return EXIT_FAILURE;
    }
    avr_t *const avr = make_core(argv[1], argv[2], argv[3]);
    self.connection = accept_connection((int)strtol(argv[4], NULL, 10));
    connect_uart(&self, avr);
    for (avr_cycle_count_t look = 0;;) {
        const int state = avr_run(avr);
        if (state == cpu_Done || state == cpu_Crashed) {
            fprintf(stderr, "the core stopped at 0x%x\n", (unsigned)avr->pc);
            return EXIT_FAILURE;
        }
        if (avr->cycle >= look) {
            send_outgoing(&self);
            receive(&self);
            look = avr->cycle + CYCLES_BETWEEN_LOOKS;
        }
    }
}
