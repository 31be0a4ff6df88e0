"""Who runs next under each policy, with tasks that are nothing but what a policy looks at."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from loadstone.kernel.other_policies import weight
from loadstone.kernel.policies import POLICIES, SLICE, Policy, make_policy
from loadstone.kernel.process import ENDED, RUNNABLE


def task(name: str, nice: int = 0, real_time: int = 0, fifo: bool = False) -> Any:
    return SimpleNamespace(
        name=name, nice=nice, real_time=real_time, inherited=0, runs_to_block=fifo, state=RUNNABLE, virtual_time=0.0
    )


def run(policy: Policy, tasks: list[Any], turns: int) -> list[str]:
    """The order of turns when everybody always uses the slice up."""
    for one in tasks:
        policy.add(one)
    order = []
    for _ in range(turns):
        chosen: Any = policy.next()
        order.append(chosen.name)
        policy.ran(chosen, policy.slice_of(chosen))
        policy.add(chosen)
    return order


def test_round_robin_takes_everybody_in_turn() -> None:
    assert run(make_policy("round-robin", None), [task(n) for n in "abc"], 7) == list("abcabca")


def test_fair_gives_each_its_share() -> None:
    policy = make_policy("fair", None)
    tasks = [task("ordinary"), task("nicer", nice=5)]
    for one in tasks:
        policy.add(one)
    work: Counter[str] = Counter()
    for _ in range(2000):
        chosen: Any = policy.next()
        policy.ran(chosen, policy.slice_of(chosen))
        work[chosen.name] += policy.slice_of(chosen)
        policy.add(chosen)
    assert work["ordinary"] / work["nicer"] == pytest.approx(1.25**5, rel=0.02)


def test_the_weights_are_those_of_the_kernel() -> None:
    # kernel/sched/core.c has 88761 for nice -20, 1024 for 0 and 15 for 19, each rounded
    assert weight(0) == 1
    assert weight(-20) == pytest.approx(88761 / 1024, rel=0.01)
    assert weight(19) == pytest.approx(15 / 1024, rel=0.03)


def test_fair_lets_who_slept_run_soon_without_credit() -> None:
    policy = make_policy("fair", None)
    busy, sleeper = task("busy"), task("sleeper")
    run(policy, [busy], 100)
    policy.add(sleeper, woken=True)
    assert policy.next() is sleeper
    assert sleeper.virtual_time >= busy.virtual_time - 2 * SLICE


def test_priority_is_strict() -> None:
    policy = make_policy("priority", None)
    tasks = [task("low", nice=10), task("middle"), task("high", nice=-5), task("real", real_time=1)]
    assert run(policy, tasks, 3) == ["real"] * 3
    order = []
    policy = make_policy("priority", None)
    for one in tasks:
        policy.add(one)
    while (chosen := policy.next()) is not None:
        order.append(chosen.name)
    assert order == ["real", "high", "middle", "low"]


def test_equals_take_turns_but_fifo_tasks_keep_the_cpu() -> None:
    assert run(make_policy("priority", None), [task("a", real_time=3), task("b", real_time=3)], 4) == list("abab")
    fifo = [task("a", real_time=3, fifo=True), task("b", real_time=3, fifo=True)]
    policy = make_policy("priority", None)
    for one in fifo:
        policy.add(one, woken=True)
    first = policy.next()
    assert first is fifo[0]
    policy.add(first)
    assert policy.next() is first


def test_a_woken_task_of_higher_priority_does_not_wait() -> None:
    policy = make_policy("priority", None)
    assert policy.preempts(task("a", nice=-1), task("b"))
    assert not policy.preempts(task("a"), task("b"))
    assert not make_policy("round-robin", None).preempts(task("a", nice=-1), task("b"))


def test_a_priority_that_changes_in_the_queue_counts() -> None:
    policy = make_policy("priority", None)
    a, b = task("a"), task("b", nice=-1)
    policy.add(a)
    policy.add(b)
    b.nice = 5
    assert policy.next() is a
    assert policy.next() is b


def test_dice_fall_the_same_for_the_same_seed() -> None:
    orders = [run(make_policy("round-robin", seed), [task(n) for n in "abcd"], 50) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert set(orders[0]) == set("abcd")
    dice = make_policy("round-robin", 3)
    lengths = {dice.slice_of(task("a")) for _ in range(200)}
    assert min(lengths) == SLICE >> 10
    assert max(lengths) == SLICE


@pytest.mark.parametrize("name", [*POLICIES, "dice"])
def test_who_ended_in_the_queue_is_left_out(name: str) -> None:
    policy = make_policy("round-robin", 1) if name == "dice" else make_policy(name, None)
    a, b = task("a"), task("b")
    policy.add(a)
    policy.add(b)
    a.state = ENDED
    assert policy.next() is b
    assert policy.next() is None
    assert policy.empty()
