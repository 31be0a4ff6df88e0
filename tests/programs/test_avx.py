"""Programs for newer CPUs: right on KVM, and on Unicorn a message instead of a wrong result."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.engines import maker
from support.compilers import Compiler
from support.run import loadstone, native

NEEDED = ("avx2", "fma", "bmi2")
V3 = ("-O3", "-march=x86-64-v3", "-ffast-math", "-lm")

# Vectors of floats with multiply-add, of bytes with shuffles, and the bit instructions, as a compiler makes them.
WHOLE = r"""
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
static float a[4096], b[4096];
static uint8_t bytes[4096];
int main(void) {
    uint64_t bits = 0x9e3779b97f4a7c15, count = 0;
    double sum = 0;
    for (int i = 0; i < 4096; i++) { a[i] = i * 0.5f; b[i] = 1.0f / (i + 1); bytes[i] = i * 7; }
    for (int n = 0; n < 50; n++)
        for (int i = 0; i < 4096; i++) a[i] = fmaf(a[i], b[i], n);
    for (int i = 0; i < 4096; i++) { sum += a[i]; bytes[i] = bytes[4095 - i] + (bytes[i] >> 3); }
    for (int i = 1; i < 5000; i++) {
        bits = (bits << (i & 63)) ^ (bits >> (i % 7)) ^ i;
        count += __builtin_popcountll(bits) + __builtin_ctzll(bits | 1) + (bits & -bits) % 7 + (bits & bits - 1) % 5;
    }
    printf("%.5g %lu %d\n", sum, (unsigned long)count, memcmp(bytes, bytes + 2048, 2048) < 0);
    return 0;
}
"""


@pytest.fixture(autouse=True)
def modern_host() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    missing = [name for name in NEEDED if name not in flags]
    if missing:
        pytest.skip(f"this CPU has no {', '.join(missing)}: there is nothing to compare with")


def programs(compiled: Compiler) -> list[str]:
    """Static and dynamic, of both C libraries, and the one with AVX deep inside."""
    whole = [compiled(WHOLE, variant, *V3) for variant in ("static", "pie", "musl-static")]
    return [*whole, *(compiled("deep_avx", variant) for variant in ("pie", "musl-static"))]


def test_right_on_kvm(compiled: Compiler) -> None:
    maker("kvm")
    for program in programs(compiled):
        wanted = native(program)
        got = loadstone("run", "--engine", "kvm", program)
        assert (got.stdout, got.stderr, got.status) == (wanted.stdout, wanted.stderr, 0), program


def test_a_message_on_unicorn(compiled: Compiler) -> None:
    for program in programs(compiled):
        got = loadstone("run", "--engine", "unicorn", program)
        assert got.status == 125, program
        assert "--engine kvm" in got.errors
        assert native(program).stdout.startswith(got.stdout), "it printed something that is not so"
        assert got.stdout != native(program).stdout


def test_what_is_never_reached_does_not_matter(compiled: Compiler) -> None:
    program = compiled("deep_avx")
    for engine in ("unicorn", "kvm"):
        maker(engine)
        assert loadstone("run", "--engine", engine, program, "plain").text == native(program, "plain").text
