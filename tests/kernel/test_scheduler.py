"""The scheduler with programs that are generators: order, waits, deadlines, ways to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from kernel.fakes import Machine
from loadstone.clock import Clock
from loadstone.errors import HostError, OutOfFrames
from loadstone.events import Run, Wake
from loadstone.kernel.cpu_time import VIRTUAL_STEP_NS
from loadstone.kernel.policies import SLICE
from loadstone.kernel.process import ENDED, RUNNABLE, WAITING, Task
from loadstone.wait import Interrupted, Wait, WaitQueue

SECOND = 1_000_000_000
Call = Generator[Wait, str, Any]
Program = Generator[Any, Any, None]


def wait_for(*queues: WaitQueue, deadline: int | None = None, fd: int = -1, write: bool = False) -> Call:
    return (yield Wait(queues, deadline, fd, write))


def test_round_robin() -> None:
    machine = Machine()

    def work(_: str) -> Program:
        yield 3 * SLICE

    first, second = machine.start(work("a")), machine.start(work("b"))
    machine.run()
    slices = [tid for kind, tid, *_ in machine.personality.log if kind == "slice"]
    assert slices[:6] == [first.tid, second.tid] * 3
    assert [(switch.source, switch.target, switch.why) for switch in machine.switches][:3] == [
        (0, first.tid, "started"), (first.tid, second.tid, "slice-end"), (second.tid, first.tid, "slice-end"),
    ]  # fmt: skip


def test_a_slice_is_longer_while_nobody_can_want_the_cpu() -> None:
    """On a core whose work is real time; from the second slice of computing on, and up to the first system call."""
    machine = Machine()
    machine.core.capabilities = frozenset({"native-speed"})

    def call() -> Call:
        yield from ()

    def computes() -> Program:
        yield 4 * SLICE
        yield call()
        yield SLICE // 2

    machine.run(machine.start(computes()))
    first, second, third, behind_the_call = machine.core.budgets[:4]
    assert first == SLICE
    assert second == third > 8 * SLICE
    assert behind_the_call == SLICE


@pytest.mark.parametrize("who", ["another task", "a timer", "a deadline", "input"])
def test_a_slice_is_no_longer_while_somebody_can(who: str) -> None:
    machine = Machine()
    machine.core.capabilities = frozenset({"native-speed"})
    descriptor, writer = os.pipe()

    def computes() -> Program:
        yield 20 * SLICE

    def waits() -> Program:
        if who == "another task":
            yield 20 * SLICE
        elif who == "a deadline":
            yield wait_for(deadline=machine.clock.monotonic_ns() + 1000 * SECOND)
        elif who == "input":
            yield wait_for(fd=descriptor)

    if who == "a timer":
        machine.personality.armed[who] = None
    machine.start(waits())
    task = machine.start(computes())
    machine.run(task)
    os.close(descriptor)
    os.close(writer)
    assert max(machine.core.budgets) == SLICE


def test_a_virtual_clock_moves_with_the_work() -> None:
    machine = Machine()

    def work() -> Program:
        yield 10 * SLICE

    machine.start(work())
    before = machine.clock.monotonic_ns()
    machine.run()
    assert 40_000_000 <= machine.clock.monotonic_ns() - before <= 40_100_000


def test_one_wakes_another() -> None:
    machine = Machine()
    queue = WaitQueue("a word")
    heard: list[object] = []

    def listen() -> Program:
        heard.append((yield wait_for(queue)))

    def speak() -> Program:
        yield SLICE
        machine.scheduler.wake(queue.wake())
        yield SLICE

    listener = machine.start(listen())
    machine.start(speak())
    machine.run()
    assert heard == ["woken"]
    assert (listener.state, queue.waiters, listener.queues) == (ENDED, [], ())


def test_a_wait_that_is_resumed_may_wait_again() -> None:
    machine = Machine()
    queue = WaitQueue("input")
    result = []

    def twice() -> Call:
        reasons = [(yield Wait((queue,)))]
        reasons.append((yield Wait((queue,), machine.clock.monotonic_ns() + SECOND)))
        return reasons

    def program() -> Program:
        result.append((yield twice()))

    def other() -> Program:
        yield 1
        machine.scheduler.wake(queue.wake())

    machine.start(program())
    machine.start(other())
    machine.run()
    assert result == [["woken", "timed-out"]]


def test_a_task_that_waits_on_two_queues_is_woken_once() -> None:
    machine = Machine()
    one, two = WaitQueue("one"), WaitQueue("two")
    result = []

    def program() -> Program:
        result.append((yield wait_for(one, two)))

    def other() -> Program:
        yield 1
        machine.scheduler.wake(one.wake())
        assert two.waiters == []
        machine.scheduler.wake(two.wake())

    machine.start(program())
    machine.start(other())
    machine.run()
    assert result == ["woken"]
    assert machine.personality.log.count(("woken", 1000)) == 1


def test_waking_some_of_those_who_wait() -> None:
    machine = Machine()
    queue = WaitQueue("a lock")
    order: list[int] = []

    def program(number: int) -> Program:
        yield wait_for(queue)
        order.append(number)

    for number in range(3):
        machine.start(program(number))

    def other() -> Program:
        yield 1
        machine.scheduler.wake(queue.wake(2))
        assert len(queue.waiters) == 1
        yield SLICE
        machine.scheduler.wake(queue.wake())

    machine.start(other())
    machine.run()
    assert order == [0, 1, 2]


def test_deadlines_on_a_virtual_clock_cost_no_time() -> None:
    machine = Machine()
    ended: list[tuple[int, object, int]] = []
    start = machine.clock.monotonic_ns()

    def sleep(seconds: int) -> Program:
        reason = yield wait_for(deadline=start + seconds * SECOND)
        ended.append((seconds, reason, machine.clock.monotonic_ns() - start))

    for seconds in (500, 100, 300):
        machine.start(sleep(seconds))
    before = time.monotonic()
    machine.run()
    assert time.monotonic() - before < 100  # of 500
    assert [(seconds, reason) for seconds, reason, _ in ended] == [(n, "timed-out") for n in (100, 300, 500)]
    assert all(n * SECOND <= at < n * SECOND + 10_000_000 for n, _, at in ended)


def test_deadlines_on_the_hosts_clock() -> None:
    machine = Machine(clock=Clock())

    def sleep() -> Program:
        yield wait_for(deadline=time.monotonic_ns() + 60_000_000)

    machine.start(sleep())
    before = time.monotonic()
    machine.run()
    assert time.monotonic() - before >= 0.06


def test_a_timer_ends_the_idling() -> None:
    machine = Machine()
    queue = WaitQueue("a timer")
    machine.personality.deadline = machine.clock.monotonic_ns() + SECOND

    def expire() -> None:
        if machine.personality.deadline is not None and machine.clock.monotonic_ns() >= machine.personality.deadline:
            machine.personality.deadline = None
            machine.scheduler.wake(queue.wake())

    machine.personality.expire = expire

    def program() -> Program:
        yield wait_for(queue)

    machine.start(program())
    machine.run()
    assert ("woken", 1000) in machine.personality.log


@pytest.mark.parametrize("clock", [None, Clock()], ids=["virtual", "host"])
def test_a_host_descriptor_that_becomes_readable(clock: Clock | None) -> None:
    machine = Machine(clock=clock)
    reading, writing = os.pipe()
    got = []

    def program() -> Program:
        got.append((yield wait_for(fd=reading)))
        got.append(os.read(reading, 10))

    machine.start(program())
    timer = threading.Timer(0.05, lambda: os.write(writing, b"hello"))
    timer.start()
    machine.run()
    timer.join()
    os.close(reading)
    os.close(writing)
    assert got == ["woken", b"hello"]


def test_a_host_descriptor_that_is_closed_at_the_other_end() -> None:
    machine = Machine(clock=Clock())
    reading, writing = os.pipe()
    os.close(writing)

    def program() -> Program:
        yield wait_for(fd=reading)

    machine.start(program())
    machine.run()
    os.close(reading)
    assert ("woken", 1000) in machine.personality.log


def test_one_descriptor_that_two_tasks_wait_for() -> None:
    """One to read from it, which nobody will make possible, the other to write to it."""
    import socket

    machine = Machine(clock=Clock())
    ours, theirs = socket.socketpair()
    done: list[str] = []

    def write() -> Program:
        yield wait_for(fd=ours.fileno(), write=True)
        done.append("written")
        theirs.send(b"x")

    def read() -> Program:
        yield wait_for(fd=ours.fileno())
        done.append("read")

    for program in (write(), read()):
        machine.start(program)
    machine.run()
    assert done == ["written", "read"]
    ours.close()
    theirs.close()


def test_a_descriptor_with_a_deadline() -> None:
    machine = Machine(clock=Clock())
    reading, writing = os.pipe()

    def program() -> Program:
        yield wait_for(fd=reading, deadline=time.monotonic_ns() + 30_000_000)

    machine.start(program())
    machine.run()
    os.close(reading)
    os.close(writing)
    assert ("timed-out", 1000) in machine.personality.log


def test_waiting_for_ever_is_said_and_not_done() -> None:
    machine = Machine()

    def program() -> Program:
        yield wait_for(WaitQueue("data in pipe:[17]"), WaitQueue("a child"))

    machine.start(program(), "cat")
    with pytest.raises(
        HostError, match=r"every task waits for ever: cat \(tid 1000\) for data in pipe:\[17\] or a child"
    ):
        machine.run()


def test_a_signal_interrupts_a_wait() -> None:
    machine = Machine()
    queue = WaitQueue("input")
    results = []

    def call() -> Call:
        try:
            yield Wait((queue,))
        except Interrupted:
            return "partial"

    def program() -> Program:
        results.append((yield call()))
        results.append((yield wait_for(queue)))

    task = machine.start(program())

    def other() -> Program:
        for _ in range(2):
            yield 1
            assert task.state == WAITING
            task.signals.attention = True
            machine.scheduler.interrupt(task)
            yield SLICE

    machine.start(other())
    machine.run()
    assert results == ["partial", "EINTR"]
    assert queue.waiters == []


def test_a_signal_of_the_hosts_reaches_an_idle_machine() -> None:
    """Which nothing else would wake: what it waits for never comes."""
    machine = Machine(clock=Clock())
    reading, writing = os.pipe()

    def forward(number: int, _: object) -> None:
        machine.scheduler.post(number)

    def console(number: int) -> None:
        for process in machine.processes.values():
            process.tasks[0].signals.attention = True
            machine.scheduler.interrupt(process.tasks[0])

    machine.personality.console_signal = console  # type: ignore[method-assign]

    def program() -> Program:
        yield wait_for(fd=reading)

    machine.start(program())
    before = signal.signal(signal.SIGUSR1, forward)
    killer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    killer.start()
    try:
        machine.run()
    finally:
        killer.join()
        signal.signal(signal.SIGUSR1, before)
        os.close(reading)
        os.close(writing)
    assert ("interrupted", 1000) in machine.personality.log


def test_stop_ends_everybody_also_from_an_idle_machine() -> None:
    machine = Machine(clock=Clock())
    reading, writing = os.pipe()

    def program() -> Program:
        yield wait_for(fd=reading)

    task = machine.start(program())
    before = signal.signal(signal.SIGUSR1, lambda number, _: machine.scheduler.stop(signal.SIGTERM))
    killer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    killer.start()
    try:
        machine.run()
    finally:
        killer.join()
        signal.signal(signal.SIGUSR1, before)
        os.close(reading)
        os.close(writing)
    assert task.process.status.signal == signal.SIGTERM


def test_post_and_stop_interrupt_the_cores() -> None:
    machine = Machine()
    machine.scheduler.post(2)
    machine.scheduler.stop(15)
    assert machine.core.interrupted == 2


def test_a_machine_that_is_out_of_time_is_switched_off() -> None:
    machine = Machine(clock=Clock(), timeout=0.05)

    def program() -> Program:
        while True:
            yield 1000

    task = machine.start(program())
    machine.run()
    assert (task.process.status.code, task.process.status.timed_out) == (124, True)


def test_time_is_up_while_everybody_waits() -> None:
    machine = Machine(clock=Clock(), timeout=0.05)
    reading, writing = os.pipe()

    def program() -> Program:
        yield wait_for(fd=reading)

    task = machine.start(program())
    machine.run()
    os.close(reading)
    os.close(writing)
    assert task.process.status.timed_out


def test_an_exception_and_a_signal_between() -> None:
    machine = Machine()

    def program() -> Program:
        yield "exception"
        task.signals.attention = True
        yield 5

    task = machine.start(program())
    machine.run()
    assert [kind for kind, _ in machine.personality.log] == ["slice", "exception", "slice", "signal"]


def test_breakpoints_pause_only_when_asked() -> None:
    machine = Machine()
    seen: list[str] = []

    def program() -> Program:
        yield from ("main", "puts", "exit here")

    task = machine.start(program())

    def reached(task: Task) -> bool:
        seen.append(task.context.stopped_at)  # type: ignore[attr-defined]
        return seen[-1] == "puts"

    machine.scheduler.on_breakpoint = reached
    machine.scheduler.run(lambda: seen[-1:] == ["puts"])
    assert (seen, task.state) == (["main", "puts"], RUNNABLE)
    machine.run()
    assert seen == ["main", "puts", "exit here"]


def test_an_error_in_a_breakpoints_function_does_not_lose_the_task() -> None:
    machine = Machine()

    def program() -> Program:
        yield "main"
        yield 5

    task = machine.start(program())

    def fail(_: Task) -> bool:
        raise KeyError("in the function")

    machine.scheduler.on_breakpoint = fail
    with pytest.raises(KeyError):
        machine.run()
    assert task.state == RUNNABLE
    machine.run()
    assert task.state == ENDED


@pytest.mark.parametrize("where", ["at once", "resumed", "interrupted"])
def test_out_of_frames_kills_wherever_it_happens(where: str) -> None:
    machine = Machine()
    queue = WaitQueue("something")

    def call() -> Call:
        if where != "at once":
            with suppress(Interrupted):
                yield Wait((queue,))
        raise OutOfFrames("full")

    def program() -> Program:
        yield call()
        raise AssertionError("it should be dead")

    def other() -> Program:
        yield 1
        if where == "interrupted":
            task.signals.attention = True
            machine.scheduler.interrupt(task)
        else:
            machine.scheduler.wake(queue.wake())
        yield SLICE

    task = machine.start(program())
    machine.start(other())
    machine.run()
    assert ("out of frames", 1000, "full") in machine.personality.log
    assert task.process.status.signal == 9


def test_what_a_core_cannot_run_stays_that_way() -> None:
    """The program has gone on past what could not be executed: its results would be wrong."""
    machine = Machine()

    def program() -> Program:
        yield "main"
        yield 5

    task = machine.start(program())

    def fail(_: Task) -> bool:
        raise HostError("the program uses AVX")

    machine.scheduler.on_breakpoint = fail
    for _ in range(2):
        with pytest.raises(HostError, match="AVX"):
            machine.run()
    assert task.state == RUNNABLE


def test_ending_a_waiting_task_takes_it_off_its_queues() -> None:
    machine = Machine()
    queue = WaitQueue("input")
    closed = []

    def call() -> Call:
        try:
            yield Wait((queue,))
        finally:
            closed.append(True)

    def program() -> Program:
        yield call()

    task = machine.start(program())

    def other() -> Program:
        yield 1
        machine.scheduler.remove(task)

    machine.start(other())
    machine.run()
    assert (queue.waiters, closed, task.pending) == ([], [True], None)


def test_a_switch_tells_how_long_and_on_what() -> None:
    machine = Machine()
    queue = WaitQueue("a word")

    def listen() -> Program:
        yield wait_for(queue)

    def speak() -> Program:
        yield 1000
        machine.scheduler.wake(queue.wake())
        yield 1

    machine.start(listen())
    machine.start(speak())
    machine.run()
    told = [(switch.why, switch.work, switch.waits_for) for switch in machine.switches[1:3]]
    assert told == [("blocked", 0, "a word"), ("slice-end", 1001, "")]
    assert machine.scheduler.cpus.process_switches == len(machine.switches) - 1
    assert machine.scheduler.cpus.thread_switches == 0


def test_stays_on_a_cpu_are_told_with_their_times_and_ends() -> None:
    """A slice of work moves the clock by 4 ms, so that times can be worked out by hand; a yield ends a slice."""
    machine = Machine()
    told: list[Any] = []
    machine.events.subscribe(told.append, ("run", "wake"))
    queue = WaitQueue("a word")

    def listen() -> Program:
        yield SLICE // 4
        yield wait_for(queue)

    def speak() -> Program:
        yield SLICE // 2
        machine.scheduler.wake(queue.wake())
        yield SLICE

    machine.start(listen())
    machine.start(speak())
    machine.run()
    ms, call = 1_000_000, VIRTUAL_STEP_NS  # a call takes a step, and so does going on with one
    assert told == [
        Run(1000, 1000, 0, 0, 1 * ms, "slice-end", SLICE // 4, ""),
        Run(1001, 1001, 0, 1 * ms, 3 * ms, "slice-end", SLICE // 2, ""),
        Run(1000, 1000, 0, 3 * ms, 3 * ms + call, "blocked", 0, "a word"),
        Wake(1000, 1000, 3 * ms + call, 1001, "woken"),
        Run(1001, 1001, 0, 3 * ms + call, 7 * ms + call, "slice-end", SLICE, ""),
        Run(1000, 1000, 0, 7 * ms + call, 7 * ms + 3 * call, "exited", 0, ""),
        Run(1001, 1001, 0, 7 * ms + 3 * call, 7 * ms + 4 * call, "exited", 0, ""),
    ]


def test_whoever_goes_on_on_its_cpu_begins_a_new_stay_though_nobody_ran_between() -> None:
    machine = Machine()
    told: list[Any] = []
    machine.events.subscribe(told.append, ("run", "wake"))

    def sleeper() -> Program:
        yield SLICE
        yield wait_for(deadline=machine.clock.seen_ns() + 9_000_000)
        yield SLICE

    machine.start(sleeper())
    machine.run()
    first, wake, second = told
    assert (first.why, first.waits_for, first.work) == ("blocked", "time", SLICE)
    assert (wake.by, wake.why) == (0, "timed-out")
    assert second.start >= wake.time >= first.end + 8_900_000
    assert (second.work, machine.scheduler.cpus.process_switches, len(machine.switches)) == (SLICE, 0, 1)


def test_nobody_is_on_two_cpus_at_a_time() -> None:
    machine = Machine(cpu_count=2)
    told: list[Run] = []
    machine.events.subscribe(told.append, ("run",))

    def work(slices: int) -> Program:
        for _ in range(slices):
            yield SLICE - 5

    for slices in (3, 5, 2, 8):
        machine.start(work(slices))
    machine.run()
    assert {run.cpu for run in told} == {0, 1}
    for tid in {run.tid for run in told}:
        stays = sorted((run.start, run.end) for run in told if run.tid == tid)
        assert all(start <= end for start, end in stays)
        assert all(before[1] <= after[0] for before, after in pairwise(stays))
    assert sum(run.work for run in told) == machine.core.retired


def test_threads_of_one_process_are_counted_apart() -> None:
    machine = Machine()

    def work() -> Program:
        yield 2 * SLICE

    first, second = machine.start(work()), machine.start(work())
    second.process.space = first.process.space
    machine.run()
    assert machine.scheduler.cpus.process_switches == 0
    assert machine.scheduler.cpus.thread_switches == len(machine.switches) - 1 > 0
    assert all(switch.same_directory for switch in machine.switches[1:])


def test_some_waits_only_a_kill_interrupts() -> None:
    machine = Machine()
    queue = WaitQueue("a child")
    results = []

    def program() -> Program:
        results.append((yield uninterruptible(queue)))

    def uninterruptible(queue: WaitQueue) -> Call:
        return (yield Wait((queue,), interruptible=False))

    task = machine.start(program())

    def other() -> Program:
        yield 1
        task.signals.attention = True
        machine.scheduler.interrupt(task)
        assert task.state == WAITING
        yield SLICE
        machine.scheduler.interrupt(task, killed=True)

    machine.start(other())
    machine.run()
    assert results == ["EINTR"]


def test_a_deadline_passes_while_others_are_busy() -> None:
    machine = Machine()
    order = []

    def sleep() -> Program:
        yield wait_for(deadline=machine.clock.monotonic_ns() + 10_000_000)
        order.append("sleeper")

    def work() -> Program:
        yield 20 * SLICE  # 80 ms of this clock
        order.append("worker")

    machine.start(sleep())
    machine.start(work())
    machine.run()
    assert order == ["sleeper", "worker"]


def test_the_cpus_share_the_work_and_obey_affinity() -> None:
    machine = Machine(cpu_count=2)
    places: list[tuple[int, int]] = []
    machine.events.subscribe(lambda e: places.append((e.target, e.cpu)), ("switch",))

    def work() -> Program:
        yield 10 * SLICE

    free, bound = machine.start(work()), machine.start(work())
    bound.affinity = 2
    machine.run()
    assert {cpu for tid, cpu in places if tid == bound.tid} == {1}
    assert 0 in {cpu for tid, cpu in places if tid == free.tid}


def test_draining_ends_when_nobody_can_run() -> None:
    machine = Machine()
    queue = WaitQueue("time")
    done = []

    def work() -> Program:
        yield 3 * SLICE
        done.append("work")

    def sleep() -> Program:
        yield wait_for(queue, deadline=machine.clock.monotonic_ns() + 1000 * SECOND)

    machine.start(work())
    sleeper = machine.start(sleep())
    machine.scheduler.drain(lambda: False)
    assert done == ["work"]
    assert sleeper.state == WAITING
