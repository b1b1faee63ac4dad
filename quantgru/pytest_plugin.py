"""A pytest plugin: holds boards to the simulator in a user's own tests.

    def test_gesture(quantgru_board):
        result = quantgru_board.run("gesture.qgru", x)
        assert result.equal, result.first_difference

    pytest --quantgru-board mps2-an386 --quantgru-port=/dev/ttyACM0

Each test that uses the fixture runs once for every board and port; without any, it is skipped. A path needs the "=":
behind a space, pytest takes it for that of tests, too, and looks for its settings there. With several workers of
pytest-xdist, --dist loadgroup has all tests of one port go to one worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from quantgru.int_model import IntModel
    from quantgru.on_board import BoardResult
    from quantgru.sequences import SequencesLike


@dataclass(frozen=True)
class QuantgruBoard:
    """A board, by name, or the port of one, and its baud rate, 115,200 if None."""

    kind: Literal["board", "port"]
    name: str
    baud: int | None = None

    def run(self, model: IntModel | str | os.PathLike[str], x: SequencesLike, **options: Any) -> BoardResult:
        """As quantgru.run_on_board; the model may be the path of a .qgru file, and a board that fails ends the test."""
        import quantgru as qg

        with _one_line():
            return qg.run_on_board(_loaded(model), x, **self._where(), **options)

    def run_seeded(self, model: IntModel | str | os.PathLike[str], n_steps: int, **options: Any) -> BoardResult:
        """As quantgru.run_seeded_on_board."""
        import quantgru as qg

        with _one_line():
            return qg.run_seeded_on_board(_loaded(model), n_steps, **self._where(), **options)

    def _where(self) -> dict[str, Any]:
        return {self.kind: self.name, "baud": self.baud}


@contextmanager
def _one_line() -> Iterator[None]:
    """Ends the test where nothing can be compared: a failure, or an error of the fixture, of one line."""
    from quantgru.errors import ConfigError, DeviceError

    try:
        yield
    except (ConfigError, DeviceError) as error:
        raise pytest.fail.Exception(f"not compared: {error}", pytrace=False) from None


def _loaded(model: IntModel | str | os.PathLike[str]) -> IntModel:
    import quantgru as qg

    return qg.IntModel.load(os.fspath(model)) if isinstance(model, (str, os.PathLike)) else model


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("quantgru", "boards held to the simulator")
    group.addoption(
        "--quantgru-board",
        action="append",
        default=[],
        metavar="NAME",
        help="build and start this board for tests with the fixture quantgru_board; may be repeated",
    )
    group.addoption(
        "--quantgru-port",
        action="append",
        default=[],
        metavar="URL",
        help="a port with a board that runs the test firmware, for the same tests; may be repeated; "
        "a path with '=', as --quantgru-port=/dev/ttyACM0",
    )
    group.addoption(
        "--quantgru-baud", type=int, metavar="N", help="baud rate of the ports, 9600 ... 12000000 (default: 115200)"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quantgru-baud") is not None and not config.getoption("--quantgru-port"):
        raise pytest.UsageError("--quantgru-baud goes with --quantgru-port")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "quantgru_board" not in metafunc.fixturenames:
        return
    boards = [QuantgruBoard("board", name) for name in metafunc.config.getoption("--quantgru-board")]
    baud = metafunc.config.getoption("--quantgru-baud")
    boards += [QuantgruBoard("port", name, baud) for name in metafunc.config.getoption("--quantgru-port")]
    if boards:
        parameters = [pytest.param(board, id=board.name, marks=_group(metafunc.config, board)) for board in boards]
        metafunc.parametrize("quantgru_board", parameters, indirect=True)


def _group(config: pytest.Config, board: QuantgruBoard) -> list[pytest.MarkDecorator]:
    """A port is for one worker of pytest-xdist; an emulated board, each worker starts for itself."""
    shared = board.kind == "port" and hasattr(config, "workerinput")
    return [pytest.mark.xdist_group(f"quantgru {board.name}")] if shared else []


@pytest.fixture
def quantgru_board(request: pytest.FixtureRequest) -> QuantgruBoard:
    """The board that this run of the test is for. An error, not a failure, where it cannot be built and run here."""
    if not hasattr(request, "param"):
        pytest.skip("no board: run pytest with --quantgru-board NAME or --quantgru-port URL")
    board: QuantgruBoard = request.param
    if board.kind == "board":
        _require_tools(board.name)
    else:
        _require_a_worker_of_its_own(request.config, board.name)
    return board


def _require_a_worker_of_its_own(config: pytest.Config, port: str) -> None:
    workers = getattr(config, "workerinput", {}).get("workercount", 1)  # of pytest-xdist
    if workers > 1 and not getattr(config.option, "loadgroup", False):
        raise pytest.fail.Exception(
            f"not compared: {workers} workers would share port {port}; add --dist loadgroup", pytrace=False
        )


def _require_tools(name: str) -> None:
    from quantgru.hil.boards import find_board

    with _one_line():
        find_board(name).require_tools()
