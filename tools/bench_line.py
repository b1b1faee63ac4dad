"""How well a line of 115,200 baud is used, how long a million seeded steps take, and how soon a session is open.

A proxy between host and board passes bytes on as a UART does, 10 bits each, in both directions at once. The shares are
those of the busier direction's wire time, from the first reply to the last: what carries payload as PROTOCOL.md defines
it, and what carries raw inputs. The board is `host`, built with the buffers of the table.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

import quantgru as qg
from quantgru.exporter import export
from quantgru.firmware_files import firmware_directory
from quantgru.hil.boards import find_boards
from quantgru.hil.frames import FrameReader
from quantgru.hil.images import Image, build, launch
from quantgru.hil.messages import REPLY
from quantgru.hil.requests import Type
from quantgru.hil.session import Session
from quantgru.hil.transport import BAUD_RATE, SerialTransport
from quantgru.int_model import IntModel

BYTE_S = 10 / BAUD_RATE
SECONDS = 2.0  # of line time for each figure
RUNS = 3  # the best counts: what else the machine does leaves gaps on the line
SEEDED_STEPS = 1_000_000


@dataclass(frozen=True)
class Buffers:
    """What port_config.h says: bytes of a frame, bytes of the line that the board keeps, requests under way."""

    name: str
    frame: int
    kept: int
    replies: int


# 102 bytes are the reply to HELLO: no firmware has a smaller frame buffer.
HOST = [Buffers(f"host, frames of {n}", n, 4096, 4) for n in (102, 128, 256, 512, 1024, 2048)]
ATMEGA = Buffers("ATmega328P", 128, 255, 2)


# ---- the line ----------------------------------------------------------------------------------------------------


class Wire:
    """One direction: a byte arrives when those before it have, and its ten bits have passed."""

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self._target = target
        self._queue: deque[tuple[float, bytes]] = deque()  # when the first byte has arrived, and what follows it
        self._free_at = 0.0
        self._reader = FrameReader()
        self.payload_bytes = 0
        self.raw_input_bytes = 0

    def take(self, now: float) -> bool:
        """Whether the source is still there."""
        try:
            data = os.read(self.source, 4096)
        except OSError:
            return False
        start = max(now, self._free_at)
        self._queue.append((start + BYTE_S, data))
        self._free_at = start + len(data) * BYTE_S
        for frame in self._reader.feed(data):
            if frame.type & ~REPLY in (Type.STEP, Type.DIGEST):
                self.payload_bytes += len(frame.payload)
                self.raw_input_bytes += 0 if frame.type & REPLY else len(frame.payload) - 4
        return bool(data)

    def give(self, now: float) -> None:
        """Passes on what has arrived."""
        while self._queue and self._queue[0][0] <= now:
            first_at, data = self._queue.popleft()
            n_arrived = min(len(data), 1 + int((now - first_at) / BYTE_S))
            os.write(self._target, data[:n_arrived])
            if n_arrived < len(data):
                self._queue.appendleft((first_at + n_arrived * BYTE_S, data[n_arrived:]))

    def wait_s(self, now: float) -> float | None:
        """Until there is a byte; of a long frame, a millisecond's bytes at a time."""
        if not self._queue:
            return None
        first_at, data = self._queue[0]
        return max(0.0, min(first_at + (len(data) - 1) * BYTE_S, max(first_at, now + 0.001)) - now)


def pass_on(listening: socket.socket, port: str, counted: Connection) -> None:
    """Serves one connection, and tells how many bytes of payload and raw inputs went down and up. A process."""
    connection, _ = listening.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    board = os.open(port, os.O_RDWR | os.O_NOCTTY)
    down, up = Wire(connection.fileno(), board), Wire(board, connection.fileno())
    wires = {wire.source: wire for wire in (down, up)}
    there = True
    while there:
        now = time.monotonic()
        waits = [wait for wire in wires.values() if (wait := wire.wait_s(now)) is not None]
        ready, _, _ = select.select(list(wires), [], [], min(waits, default=None))
        now = time.monotonic()
        there = all(wires[source].take(now) for source in ready)
        for wire in wires.values():
            if there:
                wire.give(now)
    counted.send([(wire.payload_bytes, wire.raw_input_bytes) for wire in (down, up)])


@contextmanager
def throttled(port: str) -> Iterator[tuple[str, Connection]]:
    """A URL that leads to `port` at 115,200 baud, and what tells the counts once the line is closed."""
    spawn = get_context("spawn")
    counts, counted = spawn.Pipe(duplex=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = spawn.Process(target=pass_on, args=(listening, port, counted), daemon=True)
        process.start()
        yield f"socket://127.0.0.1:{listening.getsockname()[1]}", counts
        process.join(5)
        process.kill()


# ---- figures -----------------------------------------------------------------------------------------------------


def gru_model(n_outputs: int) -> IntModel:
    """3→16 with a dense head: the size of a gesture on a wrist."""
    rng = np.random.default_rng(0)
    w, u, b, inner = (rng.uniform(-0.25, 0.25, shape) for shape in ((3, 16, 3), (3, 16, 16), (3, 16), (16,)))
    gru = qg.Gru("gru", "after", w, u, b, inner)
    head = qg.Dense("dense", rng.uniform(-0.25, 0.25, (n_outputs, 16)), rng.uniform(-0.25, 0.25, n_outputs))
    return qg.quantize(qg.FloatModel((gru, head), last_step=False), rng.normal(size=(4, 50, 3)))


def build_with(buffers: Buffers, model: IntModel, folder: Path) -> Image:
    """The host's test firmware with other buffers."""
    shutil.copytree(firmware_directory(), folder / "firmware")
    config = folder / "firmware" / "ports" / "host" / "port_config.h"
    text = config.read_text()
    for name, value in (("BUFFER_BYTES", buffers.frame), ("RECEIVE_BYTES", buffers.kept), ("REPLIES", buffers.replies)):
        text, n_found = re.subn(rf"(?m)^(#define PORT_{name}) \d+", rf"\1 {value}", text)
        assert n_found == 1, f"port_config.h does not define PORT_{name}"
    config.write_text(text)
    export(model, folder / "export", "model")
    return build(find_boards(folder / "firmware")["host"], folder / "export", folder / "build")


@dataclass(frozen=True)
class Use:
    """Of the wire time of a direction: what carried payload in the busier one, and what carried raw inputs."""

    payload: float
    raw_inputs: float
    steps_per_s: float


def line_use(image: Image, model: IntModel, by: Literal["outputs", "digests"], n_steps: int) -> Use:
    x = np.random.default_rng(1).normal(size=(1, n_steps, model.n_inputs))
    n_equal, times = 0, [0.0, 0.0]

    def progress(steps: int) -> None:
        nonlocal n_equal
        times[n_equal > 0] = time.monotonic()
        n_equal += steps

    board = find_boards()["host"]
    with launch(board, image) as port, throttled(port) as (url, counts):
        result = qg.run_on_board(model, x, port=url, by=by, progress=progress)
        assert result.equal, result.first_difference
        down, up = counts.recv()
    wire_bytes = (times[1] - times[0]) / BYTE_S
    return Use(max(down[0], up[0]) / wire_bytes, down[1] / wire_bytes, n_equal / (times[1] - times[0]))


def table_of_use(model: IntModel) -> Table:
    table = Table(
        "buffers", "way", "payload", "raw inputs", "steps a second",
        title="Shares of the busier direction at 115,200 baud; wanted: payload ≥ 90 % from 256 bytes on, ATmega ≥ 70 %",
    )  # fmt: skip
    for buffers in (*HOST, ATMEGA):
        with tempfile.TemporaryDirectory() as folder:
            image = build_with(buffers, model, Path(folder))
            for by in ("outputs", "digests"):
                step_bytes = 8 + 2 * model.n_outputs if by == "outputs" else 2 * model.n_inputs
                n_steps = int(SECONDS / BYTE_S / step_bytes)
                use = max((line_use(image, model, by, n_steps) for _ in range(RUNS)), key=lambda use: use.payload)
                table.add_row(
                    buffers.name, by, f"{use.payload:.1%}", f"{use.raw_inputs:.1%}", f"{use.steps_per_s:,.0f}"
                )
    return table


def opening_s(model: IntModel, image: Image) -> list[float]:
    """How long it takes to open a port and a session, on one board that keeps running."""
    times = []
    with launch(find_boards()["host"], image) as port:
        for _ in range(20):
            start = time.monotonic()
            with SerialTransport(port) as line:
                Session(line).open(model)
                times.append(time.monotonic() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    find_boards()["host"].require_tools()
    console, model = Console(width=120), gru_model(6)
    qg.simulate(model, np.zeros((1, 1, 3)))  # its kernels are compiled
    console.print(table_of_use(model))
    start = time.monotonic()
    result = qg.run_seeded_on_board(model, SEEDED_STEPS, board="host")
    assert result.equal, result.first_difference
    seconds = time.monotonic() - start
    console.print(
        f"{SEEDED_STEPS:,} seeded steps of 3→16 on host, built and simulated, too: {seconds:.1f} s (wanted: < 60 s)"
    )
    with tempfile.TemporaryDirectory() as folder:
        times = opening_s(model, build_with(HOST[-1], model, Path(folder)))
    console.print(f"port and session opened: {1000 * np.median(times):.1f} ms, at most {1000 * max(times):.1f} ms")


if __name__ == "__main__":
    main()
