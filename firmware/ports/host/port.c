/* A board that is a process: its line is a pseudo-terminal, which a serial library opens as it opens a board.
 *
 * Prints the path of the terminal, one line. Ends when standard input does, so that it never outlives who started it.
 */
#define _XOPEN_SOURCE 600
#include "port.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int line = -1;
static uint8_t incoming[4096];
static size_t n_incoming;
static size_t next_incoming;
static uint8_t outgoing[4096];
static size_t n_outgoing;

static void quit(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

void port_init(void)
{
    struct termios raw;
    line = posix_openpt(O_RDWR | O_NOCTTY);
    if (line < 0 || grantpt(line) != 0 || unlockpt(line) != 0) {
        quit("pseudo-terminal");
    }
    const char *const path = ptsname(line);
    /* Held open for ever: with the client's end closed, the line would otherwise read as broken until it returns. */
    const int client_end = path == NULL ? -1 : open(path, O_RDWR | O_NOCTTY);
    if (client_end < 0 || tcgetattr(client_end, &raw) != 0) {
        quit("client's end of the pseudo-terminal");
    }
    raw.c_iflag = 0; /* raw: bytes pass as they are */
    raw.c_oflag = 0;
    raw.c_lflag = 0;
    raw.c_cflag = CS8 | CREAD | CLOCAL;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(client_end, TCSANOW, &raw) != 0 || fcntl(line, F_SETFL, O_NONBLOCK) != 0) {
        quit("settings of the pseudo-terminal");
    }
    printf("%s\n", path);
    fflush(stdout);
}

/* Waits until the line is ready for `events`. Ends the process when standard input ends. */
static void wait_for_line(short events)
{
    struct pollfd ends[2] = {{line, events, 0}, {STDIN_FILENO, POLLIN, 0}};
    while ((ends[0].revents & events) == 0) {
        char ignored[64];
        if (poll(ends, 2, -1) < 0) {
            quit("poll");
        }
        if (ends[1].revents != 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0) {
            exit(EXIT_SUCCESS);
        }
    }
}

static void send_outgoing(void)
{
    size_t sent = 0;
    while (sent < n_outgoing) {
        wait_for_line(POLLOUT);
        const ssize_t n = write(line, outgoing + sent, n_outgoing - sent);
        sent += n > 0 ? (size_t)n : 0;
    }
    n_outgoing = 0;
}

uint8_t port_read_byte(void)
{
    while (next_incoming == n_incoming) {
        send_outgoing();
        wait_for_line(POLLIN);
        const ssize_t n = read(line, incoming, sizeof incoming);
        n_incoming = n > 0 ? (size_t)n : 0;
        next_incoming = 0;
    }
    return incoming[next_incoming++];
}

void port_write(const uint8_t *bytes, uint16_t n)
{
    for (uint16_t i = 0; i < n; ++i) {
        if (n_outgoing == sizeof outgoing) {
            send_outgoing();
        }
        outgoing[n_outgoing++] = bytes[i];
    }
}

uint32_t port_ticks(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)now.tv_sec * PORT_TIMER_HZ + (uint32_t)now.tv_nsec; /* modulo 2^32 */
}
