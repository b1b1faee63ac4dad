"""The boards of fault injection: host firmware with 1, 2 or 4 requests of credit, which can be told to step wrongly."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from hil_boards import board_or_skip, build_edited, replace_in, without_timer, work_directory
from hil_models import Case, make_case

from quantgru.hil.generator import Generator
from quantgru.hil.images import Image, launch
from quantgru.hil.requests import ARRAY_NAMES
from quantgru.hil.transport import SerialTransport

LENGTHS = (9, 1, 6, 4)
GENERATORS = [Generator(11 + i, i) for i in range(len(LENGTHS))]
AHEAD_BYTES = {1: 0, 2: 255, 4: 4096}  # by credit, as the boards in firmware/ports have them
ARRAYS = (*ARRAY_NAMES, "output")


@dataclass(frozen=True)
class Wrong:
    """A bit of one number that is wrong at a step of a sequence, from 1 on; of step 0 none is."""

    step: int = 0
    array: str = "u"
    unit: int = 0
    bit: int = 0


def fault_case() -> Case:
    """Inputs are those that the board generates, so that all ways can run them."""
    rows = [g.inputs(n, 3).tolist() for g, n in zip(GENERATORS, LENGTHS, strict=True)]
    return make_case(lengths=LENGTHS, rows=rows)


WRONG_STEP = """
#include <stdio.h>
static unsigned steps_done, wrong_step, array, unit, bit;
static void read_wrong(void)
{
    FILE *const file = fopen("%s", "r");
    steps_done = 0;
    if (file == NULL || fscanf(file, "%%u %%u %%u %%u", &wrong_step, &array, &unit, &bit) != 4) {
        wrong_step = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
}
static void step_wrong(model_state *state, model_scratch *scratch)
{
    if (++steps_done != wrong_step) {
        return;
    }
    uint16_t *const arrays[] = {scratch->u, scratch->r, (uint16_t *)scratch->n, (uint16_t *)state->h, state->residual};
    if (array < 5) {
        arrays[array][unit] ^= (uint16_t)(1u << bit);
    }
    if (array < 3) {
        state->h[unit] ^= 4; /* the consequence, which the check value sees */
    }
}
static void output_wrong(int16_t *outputs)
{
    if (steps_done == wrong_step && array == 5) {
        outputs[unit] = (int16_t)(outputs[unit] ^ (1 << bit));
    }
}
"""


class Boards:
    """One process for each credit, started when it is needed, and all told of the same wrong step. Close it."""

    def __init__(self) -> None:
        self.case = fault_case()
        self._host = board_or_skip("host")
        self._wrong = Path(tempfile.mkdtemp(dir=work_directory())) / "wrong.txt"
        self._images: dict[int, Image] = {}
        self._running: dict[int, tuple[SerialTransport, ExitStack]] = {}

    def board(self, credit: int) -> SerialTransport:
        """The line to a board that runs."""
        if credit not in self._running:
            image = self._image(credit)
            stack = ExitStack()
            line = stack.enter_context(SerialTransport(stack.enter_context(launch(self._host, image))))
            self._running[credit] = line, stack
        return self._running[credit][0]

    def reset(self, credit: int) -> SerialTransport:
        """The line to it after a reset."""
        self._stop(credit)
        return self.board(credit)

    def tell(self, wrong: Wrong) -> None:
        """From the next reset of the model on."""
        self._wrong.write_text(f"{wrong.step} {ARRAYS.index(wrong.array)} {wrong.unit} {wrong.bit}\n")

    def _stop(self, credit: int) -> None:
        if credit in self._running:
            self._running.pop(credit)[1].close()

    def _image(self, credit: int) -> Image:
        if credit not in self._images:
            self._images[credit] = build_edited(self.case.model, self._edit(credit))
        return self._images[credit]

    def _edit(self, credit: int):
        def edit(firmware: Path, exported: Path) -> None:
            without_timer(firmware, exported)
            config = firmware / "ports" / "host" / "port_config.h"
            replace_in(config, "PORT_REPLIES 4", f"PORT_REPLIES {credit}")
            replace_in(config, "PORT_RECEIVE_BYTES 4096", f"PORT_RECEIVE_BYTES {AHEAD_BYTES[credit]}")
            code = exported / "model.c"
            replace_in(code, '#include "model.h"\n', '#include "model.h"\n' + WRONG_STEP % self._wrong)
            replace_in(code, "    qg_reset(", "    read_wrong();\n    qg_reset(")
            step = "inputs, state->h, state->residual, &arrays);\n"
            replace_in(code, step, f"{step}    step_wrong(state, scratch);\n")
            output = "vectors, outputs);\n"
            replace_in(code, output, f"{output}    output_wrong(outputs);\n")

        return edit

    def __enter__(self) -> "Boards":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for credit in list(self._running):
            self._stop(credit)
