"""The numbers we call the C library with are those of the installed package."""

from __future__ import annotations

import ctypes
import os

import pytest
import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from loadstone.errors import HostError
from loadstone.machine import unicorn_library as uc
from machine.bare import Bare


@pytest.mark.parametrize(
    "name",
    [
        "ARCH_X86", "MODE_64", "PROT_READ", "PROT_WRITE", "PROT_EXEC", "PROT_ALL", "HOOK_INTR", "HOOK_INSN",
        "HOOK_CODE", "HOOK_BLOCK", "HOOK_EDGE_GENERATED", "HOOK_TLB_FILL",
        "HOOK_MEM_FETCH_UNMAPPED", "MEM_READ", "MEM_WRITE", "MEM_FETCH",
        "ERR_OK", "ERR_INSN_INVALID", "ERR_EXCEPTION", "TLB_VIRTUAL",
    ],
)  # fmt: skip
def test_constants(name: str) -> None:
    assert getattr(uc, name) == getattr(const, f"UC_{name}")


@pytest.mark.parametrize("name", [name for name in vars(uc) if name.startswith("INSN_")])
def test_instructions(name: str) -> None:
    assert getattr(uc, name) == getattr(x86, f"UC_X86_INS_{name[5:]}")


@pytest.mark.parametrize("name", sorted(uc.REGISTERS))
def test_registers(name: str) -> None:
    theirs = {"fcw": "FPCW", "ftw": "FPTAG", "fsw": "FPSW"}.get(name, name.upper())
    assert uc.REGISTERS[name] == getattr(x86, f"UC_X86_REG_{theirs}")


@pytest.mark.parametrize("name", ["ST0", "XMM0", "GDTR", "TR"])
def test_wide_registers(name: str) -> None:
    assert getattr(uc, f"REG_{name}") == getattr(x86, f"UC_X86_REG_{name}")


def test_control_codes() -> None:
    """UC_CTL(type, number of arguments, direction) of unicorn.h: type | arguments << 26 | direction << 30."""

    def write(kind: int, arguments: int) -> int:
        return kind | arguments << 26 | const.UC_CTL_IO_WRITE << 30

    assert write(const.UC_CTL_TLB_TYPE, 1) == uc.CTL_TLB_TYPE
    assert write(const.UC_CTL_TLB_FLUSH, 0) == uc.CTL_TLB_FLUSH
    assert write(const.UC_CTL_TB_FLUSH, 0) == uc.CTL_TB_FLUSH
    assert write(const.UC_CTL_TB_REMOVE_CACHE, 2) == uc.CTL_TB_REMOVE_CACHE


def test_the_library_is_the_packages() -> None:
    assert os.path.samefile(os.path.dirname(os.path.dirname(uc.library_path())), os.path.dirname(unicorn.__file__))
    major, minor = unicorn.uc_version()[:2]
    assert (major, minor) == (2, 1)


def test_the_flag_inside_the_engine_is_found(bare: Bare) -> None:
    """If this fails after an upgrade, programs take a sixth to a third longer: see Engine.check_exits."""
    engine = bare.core._engine
    assert engine._no_exit_request - (engine.uc.value or 0) in range(16, 4096)


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["/nonexistent"])
    monkeypatch.delenv("LIBUNICORN_PATH", raising=False)
    with pytest.raises(HostError, match="pip install unicorn"):
        uc.library_path()


def test_an_error_of_the_librarys_is_a_sentence() -> None:
    library = uc.load()
    uc.check(library, 0, "nothing")
    with pytest.raises(HostError, match=r"Unicorn: opening: .*\w"):
        uc.check(library, library.uc_open(99, 0, ctypes.byref(ctypes.c_void_p())), "opening")
