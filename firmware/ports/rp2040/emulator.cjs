// Runs a program on an RP2040 in rp2040js, its UART 0 on a socket. Ends with the first connection.
//
//     node emulator.cjs PROGRAM.elf LISTENING_FD
'use strict';

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');

const FLASH = 0x10000000;
const LOADABLE = 1;
const NS_A_CYCLE = 8; // 125 MHz
const CYCLES_A_TURN = 200000;

function emulatorModule() {
  try {
    return require('rp2040js');
  } catch {
    const everybodys = execFileSync('npm', ['root', '--global'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return require(path.join(everybodys.trim(), 'rp2040js'));
  }
}

// Copies the segments of an ELF file (32 bits, little-endian) to where they lie in flash.
function load(file, flash) {
  const elf = fs.readFileSync(file);
  const first = elf.readUInt32LE(28);
  for (let i = 0; i < elf.readUInt16LE(44); ++i) {
    const header = first + i * elf.readUInt16LE(42);
    const [type, offset, , address, bytes] = [0, 4, 8, 12, 16].map((at) => elf.readUInt32LE(header + at));
    if (type === LOADABLE && bytes !== 0) {
      flash.set(elf.subarray(offset, offset + bytes), address - FLASH);
    }
  }
}

function run(chip, socket) {
  const uart = chip.uart[0];
  const incoming = [];
  let outgoing = [];
  uart.onByte = (byte) => outgoing.push(byte);
  socket.setNoDelay(true);
  socket.on('data', (data) => incoming.push(...data));
  const turn = () => {
    for (let cycles = 0; cycles < CYCLES_A_TURN; ) {
      if (incoming.length !== 0 && !uart.rxFIFO.full) {
        uart.feedByte(incoming.shift());
      }
      const spent = chip.core.executeInstruction();
      chip.clock.tick(spent * NS_A_CYCLE);
      cycles += spent;
    }
    if (outgoing.length !== 0) {
      socket.write(Buffer.from(outgoing));
      outgoing = [];
    }
    setImmediate(turn);
  };
  turn();
}

const [image, fd] = process.argv.slice(2);
const { RP2040 } = emulatorModule();
if (image === '--version') {
  process.exit(0); // the module is there
}
const chip = new RP2040();
chip.loadBootrom(new Uint32Array(4096));
load(image, chip.flash);
chip.core.VTOR = FLASH;
chip.core.reset();
net
  .createServer((socket) => {
    socket.setNoDelay(true);
    socket.on('error', () => process.exit(0));
    socket.on('close', () => process.exit(0));
    run(chip, socket);
  })
  .listen({ fd: Number(fd) });
