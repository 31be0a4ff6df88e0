"""Code that is written at one address and run at another, or written and run in turns, as just-in-time compilers do it.

A core that keeps translations of code must notice every way in which the frame behind it can be written.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from loadstone import Machine
from machine.engines import maker
from support.compilers import SOURCES, Compiler
from support.run import ENVIRONMENT, same

ROUNDS = 1000
WAYS = re.findall(r'^    \{"([a-z-]+)", \w+, \w+\},$', (SOURCES / "rewritten.c").read_text(), re.MULTILINE)
FORKS = ("child",)

LUA = """
local sum = 0
for round = 1, 60 do
  local f = load("local s = 0 for i = 1, 200 do s = (s * " .. round .. " + i) % 65521 "
    .. "if s % 7 == " .. round % 7 .. " then s = s + 3 end end return s")
  for _ = 1, 4 do sum = (sum * 31 + f()) % 1000003 end
  if round % 20 == 0 then require("jit").flush() end
end
print(sum)
"""

ERLANG = """
F = fun(F, N, S) when N > 0 -> F(F, N - 1, (S * 31 + N) rem 65521); (_, _, S) -> S end,
io:format("~p~n", [F(F, 2000, 7)]), halt().
"""


def options(engine: str) -> tuple[str, ...]:
    """The options for a core, or a skip with the reason."""
    maker(engine)
    return ("--engine", engine)


@pytest.mark.parametrize("engine", ["unicorn", "kvm"])
@pytest.mark.parametrize("way", WAYS)
def test_every_rewritten_function_is_the_new_one(way: str, engine: str, compiled: Compiler) -> None:
    rounds = ROUNDS // 25 if way in FORKS or engine == "kvm" else ROUNDS
    done = same(compiled("rewritten"), way, str(rounds), options=options(engine))
    assert done.text.endswith(" 0 old\n")


@pytest.mark.parametrize("way", ["memfd", "segment", "read", "write"])
def test_rewriting_is_no_page_fault(way: str, compiled: Compiler) -> None:
    program = compiled("rewritten")

    def faults(rounds: int) -> int:
        with Machine(engine="unicorn") as machine:
            words = [program, way, f"{rounds:03}"]  # of one length, so that the stacks use the same pages
            assert machine.spawn(program, words, ENVIRONMENT).run().code == 0
            return machine.kernel.cores[0].exits.page_faults

    assert faults(200) == faults(20)


@pytest.mark.skipif(not shutil.which("erl"), reason="erl is not installed")
def test_erlang_whose_machine_code_is_mapped_twice() -> None:
    """Its JIT writes code at one address and runs it at another, unless told otherwise (`erl +JMsingle`)."""
    one_thread_each = ("+S", "1:1", "+SDcpu", "1:1", "+SDio", "1", "+A", "1")
    no_busy_waiting = ("+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none")
    quietly = ("-noshell", "-noinput", "-boot", "no_dot_erlang")
    same("erl", *one_thread_each, *no_busy_waiting, *quietly, "-eval", ERLANG, options=("--engine", "unicorn"))


@pytest.mark.skipif(not shutil.which("luajit"), reason="luajit is not installed")
def test_luajit_which_writes_and_runs_its_code_in_turns(here: Path) -> None:
    (here / "functions.lua").write_text(LUA)
    same("luajit", "functions.lua", options=("--engine", "unicorn"))


@pytest.mark.skipif(not shutil.which("grep"), reason="grep is not installed")
def test_regular_expressions_that_are_compiled_to_machine_code(here: Path) -> None:
    (here / "text").write_text("".join(f"line {n} of {n * n}\n" for n in range(500)))
    same("grep", "-P", r"(?<!1)\b(\d)\d*\1$", "text", options=("--engine", "unicorn"))
