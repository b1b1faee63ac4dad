"""Hardware in the loop: a board behind a serial port, held against expected integers. Knows no simulator."""
