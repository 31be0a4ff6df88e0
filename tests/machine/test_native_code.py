"""The hooks in machine code are what their source says, and Control has the layout that they rely on."""

from __future__ import annotations

import ctypes
import re
import shutil
from pathlib import Path

import pytest

from loadstone.machine import assembling, native_code, paging

SOURCE = "".join(Path(native_code.__file__).with_name(name).read_text() for name in ("hooks.s", "hooks_signals.s"))
CONSTANTS = {name: int(value, 0) for name, value in re.findall(r"\.set (\w+), (\d\w*)", SOURCE)}


@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objcopy")), reason="gcc or objcopy is not installed")
@pytest.mark.skipif(not native_code.supported(), reason="the hooks are x86-64 code")
def test_the_bytes_are_hooks_s_assembled() -> None:
    code, symbols = assembling.assemble("hooks.s")
    assert code == native_code._CODE
    assert symbols.items() >= native_code._OFFSETS.items()


def test_control_is_laid_out_as_the_hooks_expect() -> None:
    for name, _ in native_code.Control._fields_:
        if name.upper() in CONSTANTS:
            assert getattr(native_code.Control, name).offset == CONSTANTS[name.upper()], name
    used = {name.upper() for name, _ in native_code.Control._fields_} & CONSTANTS.keys()
    assert len(used) >= 30


def test_the_hooks_use_the_page_tables_bits() -> None:
    for name in ("PRESENT", "WRITABLE", "ACCESSED", "DIRTY", "AHEAD"):
        assert CONSTANTS[name] == getattr(paging, name)
    assert CONSTANTS["FRAME_MASK"] == paging.FRAME_MASK
    assert 1 << CONSTANTS["NO_EXECUTE"] == paging.NO_EXECUTE


@pytest.mark.skipif(not native_code.supported(), reason="the hooks are x86-64 code")
def test_the_block_hook_counts_and_stops() -> None:
    """Called as Unicorn calls it, with a function of ours in place of uc_emu_stop."""
    stopped: list[int] = []
    stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda engine: stopped.append(engine))
    hooks = native_code.NativeHooks([ctypes.cast(stop, ctypes.c_void_p).value or 0, 0, 0, 0, 0])
    block = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)(hooks.block)
    hooks.control.budget = 100
    for _ in range(2):
        block(7, 0x1000, 50, hooks.address)
    assert (hooks.control.budget, hooks.control.reason, stopped) == (0, 0, [])
    block(7, 0x1000, 1, hooks.address)
    assert (hooks.control.budget, hooks.control.reason, stopped) == (-1, native_code.REASON_SLICE, [7])
