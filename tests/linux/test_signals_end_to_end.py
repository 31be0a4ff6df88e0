"""Signal frames of real programs: what a handler is given, and what is left when it returns, is as natively."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.compilers import SOURCES, Compiler
from support.run import engine, of_unicorn, same

KINDS = re.findall(r'!strcmp\(kind, "([a-z0-9-]+)"\)\)', Path(SOURCES, "sigframe.c").read_text())
# What Unicorn's CPU does not do.
NOT_RAISED = {"sse": "Unicorn does not raise unmasked SSE exceptions"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_sees_and_changes_the_same_state(
    kind: str, compiled: Compiler, request: pytest.FixtureRequest
) -> None:
    if kind in NOT_RAISED and engine() != "kvm":
        request.applymarker(pytest.mark.xfail(reason=NOT_RAISED[kind], strict=True))
    options = of_unicorn() if kind in NOT_RAISED else ()
    same(compiled("sigframe"), kind, fixed_addresses=True, options=options)


@pytest.mark.parametrize("kind", ["read", "kill"])
@pytest.mark.parametrize("flags", ["s", "n", "r", "b", "i", "snr"])
def test_flags_and_masks_of_the_action(flags: str, kind: str, compiled: Compiler) -> None:
    same(compiled("sigframe"), kind, flags, fixed_addresses=True)


@pytest.mark.parametrize("variant", ["static", "musl-static"])
def test_with_other_libraries(variant: str, compiled: Compiler) -> None:
    same(compiled("sigframe", variant), "write", "s", fixed_addresses=True)


@pytest.mark.parametrize("options", [(), ("--deterministic",)])
def test_interval_timers_go_off_wherever_the_program_is(options: tuple[str, ...], compiled: Compiler) -> None:
    same(compiled("timers", "static"), options=options)


def test_the_calls_at_fixed_addresses(compiled: Compiler) -> None:
    """The vsyscall page: it cannot be read, but calling into it makes the call, as the kernel emulates it."""
    if "[vsyscall]" not in Path("/proc/self/maps").read_text():
        pytest.skip("this kernel has no vsyscall page")
    same(
        compiled(
            r"""
            #include <signal.h>
            #include <stdio.h>
            #include <stdlib.h>
            #include <sys/time.h>
            #include <sys/wait.h>
            #include <time.h>
            #include <unistd.h>
            #define PAGE 0xffffffffff600000UL
            static void handler(int number, siginfo_t *info, void *context) {
                printf("%d code %d %p\n", number, info->si_code, info->si_addr);
                exit(0);
            }
            static void wrong(int how) {  /* there is no call, or nothing where its result goes */
                static const struct { unsigned long address, first, second; } calls[] = {
                    {PAGE + 8, 0, 0}, {PAGE + 0xc00, 0, 0}, {PAGE + 0x400, 8, 0}, {PAGE, 0, 16},
                    {PAGE, PAGE, 0}, {PAGE, 0, 1UL << 63}, {PAGE + 0x800, 0, 0},
                };
                struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
                sigaction(SIGSEGV, &action, 0);
                long (*call)(long, long, long) = (void *)calls[how].address;
                printf("%ld\n", call(calls[how].first, calls[how].second, 0));
                exit(0);
            }
            int main(void) {
                time_t (*at)(time_t *) = (void *)0xffffffffff600400UL;
                int (*day)(struct timeval *, void *) = (void *)0xffffffffff600000UL;
                struct timeval now;
                time_t first = at(0), then = time(0), same = at(0);
                printf("%d %d ", labs(first - then) < 2, labs(same - then) < 2);
                printf("%d %d\n", day(&now, 0), labs(now.tv_sec - then) < 2);
                fflush(stdout);
                for (int how = 0; how < 7; how++)
                    if (!fork()) wrong(how);
                    else wait(0);
                return *(volatile char *)0xffffffffff600000UL;  /* and to read it is a fault */
            }
            """,
            "pie",
        )
    )
