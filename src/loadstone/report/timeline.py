"""The picture of a run's processes: one row a thread, in the order of the tree, over the machine's time.

Here is where everything goes, in pixels; `report.timeline_svg` draws it. What is narrower than a pixel is joined with
its neighbour, so that the picture of a long run is no larger than that of a short one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from loadstone.observe.processes import EXIT_WAKES, RUNNING, History, Link, Process, Span, Thread
from loadstone.report.processes import command, command_line

WIDTH = 1280
TOP = 92  # title and legend
AXIS = 26
LANE = 20  # a CPU's
RIGHT = 160  # what it took, how it ended
WIDEST_LABELS = 300
SMALLEST = 0.7  # what is narrower is joined with its neighbour, in pixels
MOST_TICKS = 9
_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns"))
_MONOSPACE = 0.602  # width of a letter by its size


class Scale(NamedTuple):
    """How large a row is drawn: its height, that of a bar in it, and the size of letters."""

    row: int
    bar: int
    letters: float
    roomy: bool  # there is room for words beside the bars


class Axis(NamedTuple):
    """The machine's time as pixels: `begin` is at `left`, a nanosecond is `stretch` wide, `end` the last one.

    `zero`: what times are told from, the birth of the first process.
    """

    left: float
    begin: int
    end: int
    stretch: float
    zero: int

    def place(self, time: int) -> float:
        """Where a moment is."""
        return self.left + (time - self.begin) * self.stretch

    def shows(self, time: int) -> bool:
        """Whether a moment is on the picture."""
        return self.begin <= time <= self.end


class Line(NamedTuple):
    """A thread that is shown: its place in the tree, and its states as far as they are shown."""

    process: Process
    thread: Thread
    depth: int
    above: int  # the line of the process it hangs from, -1 for none
    spans: list[Span]


class Box(NamedTuple):
    """A state that a thread was in, from `x` on, `width` pixels; `of` is the thread's number.

    `cover`: how much of the width it really was in it, 1 unless short stays were joined.
    """

    x: float
    width: float
    span: Span
    of: int
    cover: float = 1.0

    @property
    def end(self) -> float:
        """Where it ends."""
        return self.x + self.width


class Row(NamedTuple):
    """One thread: `y` is its middle, `depth` its place in the tree."""

    y: float
    depth: int
    parent: int  # the row that it hangs from, -1 for none
    label: str
    process: Process
    thread: Thread
    boxes: list[Box]


class Arrow(NamedTuple):
    """From one row to another at `x`. `kind`: fork, exit (of a child that was waited for) or wake."""

    x: float
    start: float
    end: float
    kind: str
    note: str


class Tick(NamedTuple):
    """A mark on the axis."""

    x: float
    label: str


class Lane(NamedTuple):
    """A CPU: who ran there, and for how much of the time somebody did."""

    cpu: int
    y: float
    boxes: list[Box]
    busy: float


class Picture(NamedTuple):
    """Everything that is drawn."""

    width: int
    height: float
    axis: Axis
    scale: Scale
    rows: list[Row]
    lanes: list[Lane]
    arrows: list[Arrow]
    ticks: list[Tick]
    names: dict[int, str]  # of threads, short


def draw(history: History, words: Sequence[str], engine: str, window: tuple[int, int] | None = None) -> str:
    """The picture as SVG. `history` must have details; `words`: the command line; `engine`: the CPU core's name.

    `window`: from when to when, in ns since the first process began; default: all of it.
    """
    from loadstone.report.timeline_svg import svg

    return svg(lay_out(history, window), history, command_line(words), engine)


def lay_out(history: History, window: tuple[int, int] | None = None) -> Picture:
    """Place everything that is in the window."""
    zero = history.began
    begin, end = (zero + window[0], min(zero + window[1], history.until)) if window else (zero, history.until)
    lines = _lines(history, begin, end)
    scale = _scale(len(lines))
    labels = [_label(line.process, line.thread) for line in lines]
    indents = [line.depth * indent(scale) for line in lines]
    wanted = max((at + len(label) * scale.letters * _MONOSPACE for at, label in zip(indents, labels, strict=True)),
                 default=0)  # fmt: skip
    left = min(wanted, WIDEST_LABELS) + 78
    axis = Axis(left, begin, end, (WIDTH - RIGHT - left) / max(end - begin, 1), zero)
    cpus = history.cpus
    top = TOP + AXIS + LANE * len(cpus) + 14
    rows = [
        Row(
            top + scale.row * (at + 0.5), line.depth, line.above, _fit(label, left - 78 - indents[at], scale),
            line.process, line.thread, _boxes(line.spans, line.thread.tid, axis),
        )
        for at, (line, label) in enumerate(zip(lines, labels, strict=True))
    ]  # fmt: skip
    lanes = [_lane(cpu, TOP + AXIS + LANE * (at + 0.5), lines, axis) for at, cpu in enumerate(cpus)]
    return Picture(
        WIDTH, top + scale.row * len(rows) + 20, axis, scale, rows, lanes, _arrows(history.links, rows, axis),
        _ticks(axis), _names(history),
    )  # fmt: skip


def _lines(history: History, begin: int, end: int) -> list[Line]:
    """The threads that lived in the time, parents before their children."""
    made: list[Line] = []
    numbers: dict[int, int] = {}  # of those that are shown, by their number among all
    for number, (process, thread, depth, above) in enumerate(_in_tree_order(history.roots)):
        ended = thread.ended if thread.ended is not None else history.until
        if thread.born <= end and ended >= begin:
            numbers[number] = len(made)
            made.append(Line(process, thread, depth, numbers.get(above, -1), _clipped(thread.spans, begin, end)))
    return made


def _clipped(spans: list[Span], begin: int, end: int) -> list[Span]:
    return [
        span._replace(start=max(span.start, begin), end=min(span.end, end))
        for span in spans
        if span.start <= end and span.end >= begin
    ]


def indent(scale: Scale) -> int:
    """Pixels to the right a level of the tree goes."""
    return 14 if scale.roomy else 9


def _scale(count: int) -> Scale:
    if count <= 26:
        return Scale(27, 14, 12, True)
    return Scale(18, 10, 10.5, True) if count <= 80 else Scale(12, 7, 8.5, False)


def _in_tree_order(roots: list[Process]) -> Iterator[tuple[Process, Thread, int, int]]:
    """Each thread with its depth and the number of the row it hangs from; a process's threads follow its first."""
    pending = [(process, 0, -1) for process in reversed(roots)]
    number = 0
    while pending:
        process, depth, above = pending.pop()
        own = number
        for place, thread in enumerate(process.threads.values()):
            yield process, thread, depth + (place > 0), own if place else above
            number += 1
        pending += [(child, depth + 1, own) for child in reversed(process.children)]


def _label(process: Process, thread: Thread) -> str:
    return command(process) if thread.tid == process.pid else f"thread {thread.tid}"


def _fit(label: str, width: float, scale: Scale) -> str:
    most = max(int(width / (scale.letters * _MONOSPACE)), 8)
    return label if len(label) <= most else label[: most - 1] + "…"


def _names(history: History) -> dict[int, str]:
    names = {}
    for process in history.processes:
        words = process.arguments
        name = process.programs[-1].name if process.programs else (words[0].rpartition("/")[2] if words else "?")
        names.update(dict.fromkeys(process.threads, name))
    return names


def _boxes(spans: list[Span], tid: int, axis: Axis) -> list[Box]:
    """What it waited in, as far as that can be seen, and over it every stay on a CPU, however short."""
    waits: list[Box] = []
    for span in spans:
        x, end = axis.place(span.start), axis.place(span.end)
        if waits and end - waits[-1].end < SMALLEST:
            waits[-1] = waits[-1]._replace(width=end - waits[-1].x)
        elif span.state != RUNNING:
            waits.append(Box(x, end - x, span, tid))
    return waits + _stays(((span, tid) for span in spans if span.state == RUNNING), axis)


def _stays(stays: Iterable[tuple[Span, int]], axis: Axis) -> list[Box]:
    """Stays on a CPU, in order of time; what would lie on each other is one box, the paler the less they fill it."""
    made: list[Box] = []
    for span, tid in stays:
        x, end = axis.place(span.start), axis.place(span.end)
        before = made[-1] if made else None
        same = before is not None and before.of == tid and before.span.cpu == span.cpu
        if before is not None and x - before.end < SMALLEST and (same or before.width < SMALLEST * 2):
            filled = before.cover * before.width + end - x
            longer = before if same or end - x < before.width else Box(x, end - x, span, tid)
            made[-1] = longer._replace(x=before.x, width=end - before.x, cover=filled / (end - before.x))
        else:
            made.append(Box(x, max(end - x, SMALLEST), span, tid, min(1.0, (end - x) / SMALLEST)))
    return made


def _lane(cpu: int, y: float, lines: list[Line], axis: Axis) -> Lane:
    stays = sorted(
        (span.start, span.end, line.thread.tid, span) for line in lines for span in line.spans if span.cpu == cpu
    )
    boxes = _stays(((span, tid) for _, _, tid, span in stays), axis)
    last = max((end for _, end, *_ in stays), default=axis.begin)
    busy = sum(end - start for start, end, *_ in stays) / max(last - axis.begin, 1)
    return Lane(cpu, y, boxes, min(busy, 1.0))


def _arrows(links: list[Link], rows: list[Row], axis: Axis) -> list[Arrow]:
    """One arrow for all of a kind that would lie on each other."""
    where = {row.thread.tid: row.y for row in rows}
    made: dict[tuple[float, int, int, str], Arrow] = {}
    for link in links:
        known = link.source in where and link.target in where and link.source != link.target
        if not known or not axis.shows(link.time):
            continue
        kind = link.kind if link.kind == "fork" else "exit" if link.what.startswith(EXIT_WAKES) else "wake"
        x = axis.place(link.time)
        note = {"fork": "forks", "exit": "tells its parent"}.get(kind, f"wakes, {link.what}")
        key = round(x / 2), link.source, link.target, kind
        made.setdefault(key, Arrow(x, where[link.source], where[link.target], kind, note))
    return list(made.values())


def _ticks(axis: Axis) -> list[Tick]:
    """At round times since the beginning: 1, 2 or 5 of a power of ten apart."""
    step = 1
    while (axis.end - axis.begin) // step > MOST_TICKS:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    first = -(-(axis.begin - axis.zero) // step) * step
    size, unit = next((size, unit) for size, unit in _UNITS if max(first, step) >= size)
    digits = len(str(size // step)) - 1 if step < size else 0 if step % size == 0 else 1
    return [
        Tick(axis.place(axis.zero + at), f"{at / size:.{digits}f} {unit}" if at else "0")
        for at in range(first, axis.end - axis.zero + 1, step)
    ]
