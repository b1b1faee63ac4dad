/* Where constants and code are placed, how constants are read, and which kernels fit: the one header to adapt to a
 * target.
 *
 * Replace it by putting your own quantgru_port.h in front of this one in the include path. It must define
 * everything that is defined here. Nothing in it changes a result.
 *
 *   QG_CONSTANT     attribute of constant arrays (weights, biases, tables)
 *   QG_DESCRIPTOR(type) begins the typedef of a descriptor, with the address space that it lies in if that is not RAM
 *   QG_KERNEL       attribute of the functions that take the time, e.g. to run them from RAM
 *   QG_STATE        attribute that example code gives to state and scratch, e.g. a fast memory
 *   QG_READ_*(p)    the constant that p points to
 *   QG_KERNELS      one of the numbers below
 *
 * Each file under src compiles everywhere: one that is not of QG_KERNELS compiles to nothing.
 */
#ifndef QUANTGRU_PORT_H
#define QUANTGRU_PORT_H

#include <stdint.h>

#define QG_KERNELS_MANY_REGISTERS 0 /* eight sums at a time */
#define QG_KERNELS_FEW_REGISTERS 1  /* four */
#define QG_KERNELS_NO_MULTIPLIER 2  /* products are looked up */
#define QG_KERNELS_AVR 3            /* 8-bit AVR with mul: a row at a time, in assembly language */

#if defined(__AVR_HAVE_MUL__)
#define QG_KERNELS QG_KERNELS_AVR
#elif defined(__riscv) && !defined(__riscv_mul)
#define QG_KERNELS QG_KERNELS_NO_MULTIPLIER
#elif defined(__AVR__) || defined(__riscv_32e) ||                                                                      \
    (defined(__thumb__) && !defined(__thumb2__)) /* Thumb: Cortex-M0, M23 */
#define QG_KERNELS QG_KERNELS_FEW_REGISTERS
#else
#define QG_KERNELS QG_KERNELS_MANY_REGISTERS
#endif

#define QG_KERNEL
#define QG_STATE

/* Harvard: constants stay in flash, at most 32,767 bytes an array. They are read with 16-bit addresses, and the linker
 * does not say so when several models together pass 64 KB: run each NAME_selftest once at start-up. */
#ifdef __AVR__

#include <avr/pgmspace.h>

#if defined(__cplusplus)
#define QG_DESCRIPTOR(type) typedef type
#elif defined(__FLASH) && !defined(__STRICT_ANSI__)
#define QG_DESCRIPTOR(type) __extension__ typedef const __flash type
#else
#error "descriptors of models lie in flash: compile C for an AVR with -std=gnu99 or later"
#endif

#define QG_CONSTANT PROGMEM
#define QG_READ_S8(p) ((int8_t)pgm_read_byte(p))
#define QG_READ_U8(p) ((uint8_t)pgm_read_byte(p))
#define QG_READ_S16(p) ((int16_t)pgm_read_word(p))
#define QG_READ_U16(p) ((uint16_t)pgm_read_word(p))
#define QG_READ_S32(p) ((int32_t)pgm_read_dword(p))

#else /* one address space */

#define QG_DESCRIPTOR(type) typedef type
#define QG_CONSTANT
#define QG_READ_S8(p) (*(p))
#define QG_READ_U8(p) (*(p))
#define QG_READ_S16(p) (*(p))
#define QG_READ_U16(p) (*(p))
#define QG_READ_S32(p) (*(p))

#endif

#endif
