"""The exported CMakeLists.txt in projects of others: for another processor, and with a target of compiler options.

The same file was tried with the real Pico SDK and ESP-IDF, which are too large for tests: docs/porting.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hil_boards import board_or_skip
from support_export import FindTool, load, run_command

import quantgru as qg
from quantgru.exporter import export
from quantgru.hil.boards import Board
from quantgru.hil.images import Image, launch

CPU = "-mthumb -mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16"

TOOLCHAIN = """\
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
"""

# The test firmware as somebody's project; the model is a folder in it.
PROJECT = """\
cmake_minimum_required(VERSION 3.13)
project(firmware C)
{before}
add_subdirectory(model)
file(GLOB harness {firmware}/harness/*.c)
add_executable(firmware ${{harness}} {sources})
target_compile_options(firmware PRIVATE {cpu})
target_include_directories(firmware PRIVATE {firmware}/harness {firmware}/harness/compiled)
target_include_directories(firmware PRIVATE {folder} {folder}/../cortex-m)
target_link_libraries(firmware PRIVATE model)
target_link_options(firmware PRIVATE {cpu} {link_flags})
"""


@pytest.fixture
def board() -> Board:
    return board_or_skip("netduinoplus2")


def build_project(board: Board, folder: Path, find_tool: FindTool, *, before: str = "", flags: str = "") -> Path:
    """The program of a project with the golden model gesture, compiled for a board."""
    export(load("gesture"), folder / "model", "model")
    text = PROJECT.format(
        before=before,
        firmware=board.firmware,
        folder=board.folder,
        sources=" ".join(str(board.folder / source) for source in board.program.sources),
        cpu=CPU.replace(" ", ";"),
        link_flags=" ".join(board.program.link_flags).format(port=board.folder),
    )
    (folder / "CMakeLists.txt").write_text(text)
    (folder / "toolchain.cmake").write_text(f'{TOOLCHAIN}set(CMAKE_C_FLAGS_INIT "{flags}")\n')
    cmake = find_tool("cmake")
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={folder / 'toolchain.cmake'}"
    run_command(cmake, "-S", folder, "-B", folder / "build", toolchain, "-DCMAKE_BUILD_TYPE=Release")
    run_command(cmake, "--build", folder / "build")
    return folder / "build" / "firmware"


def assert_equal_on(board: Board, program: Path) -> None:
    model = load("gesture")
    raw = np.random.default_rng(3).integers(-(2**15), 2**15, (2, 50, model.n_inputs))
    with launch(board, Image(program, 0, 0)) as url:
        result = qg.run_on_board(model, raw * 2.0**-model.input_fraction_bits, port=url)
    assert result.equal, str(result.first_difference)
    assert result.steps == 100


def test_a_project_with_a_toolchain_file(board: Board, find_tool: FindTool, tmp_path: Path) -> None:
    """As the Pico SDK does it: the processor is in the flags of all targets."""
    assert_equal_on(board, build_project(board, tmp_path, find_tool, flags=CPU))


def test_a_project_with_its_options_in_zephyr_interface(board: Board, find_tool: FindTool, tmp_path: Path) -> None:
    """As Zephyr does it. Without the options of this target, model and kernels would be code for another processor."""
    options = f"add_library(zephyr_interface INTERFACE)\ntarget_compile_options(zephyr_interface INTERFACE {CPU})"
    assert_equal_on(board, build_project(board, tmp_path, find_tool, before=options))
