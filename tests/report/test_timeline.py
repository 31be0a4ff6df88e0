"""The table and the picture of processes: nothing is cut or overlaps, whatever names programs have, however many."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from loadstone import events
from loadstone.observe.processes import History
from loadstone.report.paper import Paper
from loadstone.report.processes import print_processes
from loadstone.report.timeline import WIDTH, draw, lay_out
from loadstone.report.units import duration

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = ("\x1b[31m</text><script>alert(1)</script>", 'a "b" & <c>', "\udcff", "line\nbreak")


def shell(children: int, stays: int = 3) -> History:
    """A shell whose children run in turn on two CPUs, each `stays` times."""
    history = History(details=True)
    history(events.Program(1000, 1000, 0, "/bin/sh", "/bin/dash", "sh", ("sh", *HOSTILE)))
    time = 1_000_000
    history(events.Run(1000, 1000, 0, 0, time, "blocked", 1, "a child"))
    for pid in range(1001, 1001 + children):
        history(events.Fork(1000, 1000, pid, 17, False, time))
        history(events.Program(pid, pid, time + 10, "/bin/x", "/bin/x", "x", (f"x{pid % 7}", "-a", "b" * 50)))
        for stay in range(stays):
            why = "exited" if stay == stays - 1 else "blocked"
            history(events.Run(pid, pid, stay % 2, time, time + 900, why, 1, "data in pipe:[1]"))
            if why == "blocked":
                history(events.Wake(pid, pid, time + 1500, 1000, "woken"))
            time += 2000
        history(events.Exit(pid, pid, pid % 3, None, time, 900 * stays, 5, 1, stays, 9))
    history(events.Wake(1000, 1000, time, 1000 + children, "woken"))
    history(events.Run(1000, 1000, 0, time, time + 10_000, "exited", 1, ""))
    history(events.Exit(1000, 1000, 0, "SIGTERM", time + 10_000, 10_000, 5, 1, 2, 9))
    return history


@pytest.mark.parametrize("children", [0, 3, 60, 200])
def test_the_picture_is_well_formed_and_everything_is_inside(children: int) -> None:
    history = shell(children)
    root = ElementTree.fromstring(draw(history, ["sh", *HOSTILE], "unicorn"))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    texts = ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
    for pid in range(1000, 1001 + children):
        assert str(pid) in texts
    assert not list(root.iter(f"{SVG}script"))
    assert all(text.replace("\n", "").isprintable() for node in root.iter() for text in (node.text or "",)
               if not node.tag.endswith("style"))  # fmt: skip
    legend = {id(bar) for group in root.iter(f"{SVG}g") if "transform" in group.attrib for bar in group}
    bars = [bar.attrib for bar in root.iter(f"{SVG}rect") if "x" in bar.attrib and id(bar) not in legend]
    for bar in bars:
        x, y = float(bar["x"]), float(bar["y"])
        assert x >= 0 and x + float(bar["width"]) <= width
        assert y >= 0 and y + float(bar["height"]) <= height


@pytest.mark.parametrize("children", [3, 60, 200])
def test_rows_are_high_enough_for_their_letters(children: int) -> None:
    picture = lay_out(shell(children))
    tops = [row.y for row in picture.rows]
    assert len(tops) == children + 1
    assert all(below - above >= picture.scale.letters + 2 for above, below in pairwise(tops))
    for row in picture.rows:
        assert len(row.label) * picture.scale.letters * 0.602 + row.depth * 9 <= picture.axis.left


def test_a_long_run_is_no_larger_than_what_can_be_seen() -> None:
    few, many = (draw(shell(2, stays), ["sh"], "kvm") for stays in (2_000, 40_000))
    assert len(many) < 1.5 * len(few) < 300_000


def test_short_stays_are_seen_and_paler_than_long_ones() -> None:
    history = History(details=True)
    history(events.Program(1000, 1000, 0, "/bin/x", "/bin/x", "x", ("x",)))
    history(events.Run(1000, 1000, 0, 0, 10_000_000, "blocked", 1, "time"))
    for time in range(20_000_000, 40_000_000, 500_000):
        history(events.Run(1000, 1000, 0, time, time + 1000, "blocked", 1, "time"))
    history(events.Run(1000, 1000, 0, 90_000_000, 100_000_000, "exited", 1, ""))
    boxes = [box for box in lay_out(history).rows[0].boxes if box.span.state == "running"]
    assert boxes[0].cover == boxes[-1].cover == 1
    assert len(boxes) == 42
    assert all(box.cover < 0.5 and box.width >= 0.7 for box in boxes[1:-1])


def test_a_long_stay_is_its_thread_s_though_a_short_one_came_right_before() -> None:
    history = History(details=True)
    history(events.Program(1000, 1000, 0, "/bin/sh", "/bin/dash", "sh", ("sh",)))
    history(events.Fork(1000, 1000, 1001, 17, False, 10))
    history(events.Run(1000, 1000, 0, 0, 1_000, "blocked", 1, "a child"))
    history(events.Run(1001, 1001, 0, 1_000, 10_000_000, "exited", 1, ""))
    (box,) = lay_out(history).lanes[0].boxes
    assert (box.of, box.cover) == (1001, pytest.approx(1, abs=0.01))


def test_the_axis_has_round_times() -> None:
    for length in (7, 950, 12_345, 446_000_000, 16_800_000_000, 3_600_000_000_000):
        history = History(details=True)
        history(events.Program(1000, 1000, 0, "/bin/x", "/bin/x", "x", ("x",)))
        history(events.Run(1000, 1000, 0, 0, length, "exited", 1, ""))
        ticks = lay_out(history).ticks
        assert 3 <= len(ticks) <= 11
        assert all(re.fullmatch(r"0|\d+(\.5)? (ns|us|ms|s)", tick.label) for tick in ticks), ticks
        assert ticks[-1].x <= WIDTH


def test_a_window_shows_who_lived_then_and_nothing_outside() -> None:
    history = shell(40)
    begin, end = 1_020_000, 1_050_000
    picture = lay_out(history, (begin, end))
    lived = [
        thread.tid for thread in history.threads()
        if thread.born <= end and thread.ended is not None and thread.ended >= begin
    ]  # fmt: skip
    assert [row.thread.tid for row in picture.rows] == lived
    assert all(picture.rows[row.parent].process is row.process.parent for row in picture.rows if row.parent >= 0)
    right = picture.axis.place(end)
    boxes = [box for part in (*picture.rows, *picture.lanes) for box in part.boxes]
    assert all(picture.axis.left <= box.x <= box.end <= right + 0.8 for box in boxes)
    assert all(picture.axis.left <= tick.x <= right for tick in picture.ticks)
    assert all(picture.axis.left <= arrow.x <= right for arrow in picture.arrows)
    wanted = sum(min(span.end, end) - max(span.start, begin) for thread in history.threads() for span in thread.spans
                 if span.cpu == 0 and span.start <= end and span.end >= begin)  # fmt: skip
    assert picture.lanes[0].busy == pytest.approx(wanted / (end - begin), rel=0.05)
    assert "here 1.02 ms to 1.05 ms" in draw(history, ["sh"], "kvm", (begin, end))


def test_times_are_told_from_the_birth_of_the_first_process() -> None:
    """A record may begin late, and a machine's time goes on from one run to the next."""
    history = History(details=True)
    history(events.Program(1000, 1000, 5_000_000, "/bin/x", "/bin/x", "x", ("x",)))
    history(events.Run(1000, 1000, 0, 5_000_000, 6_000_000, "blocked", 1, "time"))
    history(events.Run(1000, 1000, 0, 7_000_000, 8_000_000, "exited", 1, ""))
    root = ElementTree.fromstring(draw(history, ["x"], "kvm"))
    assert any("1 CPU  ·  3.00 ms  ·" in (text.text or "") for text in root.iter(f"{SVG}text"))
    row = next(group for group in root.iter(f"{SVG}g") if group.get("class") == "row")
    assert [bar.findtext(f"{SVG}title") for bar in row.iter(f"{SVG}rect")][1:] == [
        "blocked: time, 1.00 ms from 1.00 ms on",
        "on CPU 0, 1.00 ms from 0 on",
        "on CPU 0, 1.00 ms from 2.00 ms on",
    ]


@pytest.mark.parametrize("window", [(0, 1 << 62), (0, 5_000_000), (1, 2), (999_999, 1_000_001)])
def test_a_window_of_any_size_is_drawn(window: tuple[int, int]) -> None:
    root = ElementTree.fromstring(draw(shell(5), ["sh"], "unicorn", window))
    assert list(root.iter(f"{SVG}text"))


@pytest.mark.parametrize("width", [80, 110])
def test_the_table_fits(width: int) -> None:
    stream = io.StringIO()
    history = shell(200)
    print_processes(history, Paper(stream, width))
    text = stream.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    assert "\x1b" not in text and "SIGTERM" in text and "201 processes" in text
    rows = [line for line in text.splitlines() if re.match(r" +\d+ ", line)]
    assert len(rows) == 201


def test_many_alike_share_a_row_and_their_sums() -> None:
    history = History()
    history(events.Program(1000, 1000, 0, "/bin/sh", "/bin/dash", "sh", ("sh",)))
    for pid in range(1001, 1031):
        history(events.Fork(1000, 1000, pid, 17, False, 0))
        history(events.Program(pid, pid, 0, "/bin/true", "/bin/true", "true", ("/bin/true",)))
        history(events.Exit(pid, pid, 0 if pid != 1020 else 1, None, 0, 1_000_000, 5, 1, 1, 9))
    stream = io.StringIO()
    print_processes(history, Paper(stream, 100))
    text = stream.getvalue()
    assert re.search(r"1000 +sh +- ", text)
    assert re.search(r"1001 +├─ 19 x true +0 +19\.0 ms +114 ", text)
    assert re.search(r"1020 +├─ true +1 +1\.00 ms +6 ", text)
    assert re.search(r"1021 +└─ 10 x true +0 +10\.0 ms +60 ", text)


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (0, "0"), (999, "999 ns"), (1_000, "1 us"), (999_499, "999 us"), (999_500, "1.00 ms"), (1_234_567, "1.23 ms"),
        (12_345_678, "12.3 ms"), (123_456_789, "123 ms"), (999_600_000, "1.00 s"), (65_432_000_000, "65.4 s"),
        (3_600_000_000_000, "3600 s"),
    ],
)  # fmt: skip
def test_durations(nanoseconds: int, shown: str) -> None:
    assert duration(nanoseconds) == shown
