"""Draws a timeline (`report.timeline`) as SVG that needs nothing else: no script, no font, no network.

It follows the reader's light or dark scheme. Every bar says more when it is pointed at.
"""

from __future__ import annotations

from html import escape

from loadstone.observe.processes import BLOCKED, READY, RUNNING, STOPPED, History
from loadstone.observe.text import printable
from loadstone.report.paper import count
from loadstone.report.processes import command, status
from loadstone.report.timeline import AXIS, TOP, Arrow, Box, Lane, Picture, Row, indent
from loadstone.report.units import duration

_COLOURS = 8  # of CPUs; then they come again
_TALL = 700  # pixels from which the times stand below the rows, too
_STYLE = """
svg { --paper:#ffffff; --ink:#1d2733; --dim:#66717e; --faint:#e6eaee; --line:#b6c0ca; --band:#f6f8fa; --bad:#c8322b;
  --ready:#f2c14e; --c0:#2f6fd0; --c1:#d9722e; --c2:#2b9a73; --c3:#9b51c2; --c4:#c23a6b; --c5:#1496a8; --c6:#8a7a1f;
  --c7:#5b6bb5; --child:#0f8a78; --wake:#9a86c8; }
@media (prefers-color-scheme: dark) { svg { --paper:#12171d; --ink:#e4e9ee; --dim:#93a0ad; --faint:#232b34;
  --line:#4a5663; --band:#181f27; --bad:#ff6b62; --ready:#d9a93a; --c0:#5c9aff; --c1:#f0945a; --c2:#46c39a;
  --c3:#c183e6; --c4:#ee6d9a; --c5:#3fc0d2; --c6:#c2b04a; --c7:#8f9df0; --child:#36bfa9; --wake:#7f6fb0; } }
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: var(--ink); }
.m { font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
.d { fill: var(--dim); } .s { font-size: 10.5px; } .t { font-size: 17px; font-weight: 600; } .e { text-anchor: end; }
.b { fill: var(--bad); font-weight: 600; } .i { fill: var(--paper); } .c { text-anchor: middle; }
.g { stroke: var(--faint); } .tree { stroke: var(--line); fill: none; } .row:hover .band { fill: var(--band); }
.band { fill: transparent; } .ready { fill: var(--ready); } .blocked { fill: var(--line); }
.stopped { fill: var(--bad); opacity: .55; }
.fork { stroke: var(--ink); opacity: .55; fill: none; } .exit { stroke: var(--child); fill: none; }
.wake { stroke: var(--wake); stroke-dasharray: 1.5 2.5; fill: none; opacity: .8; }
.exec { fill: var(--paper); stroke: var(--ink); } .end { fill: var(--ink); } .failed { fill: var(--bad); }
.p0 { fill: var(--c0); } .p1 { fill: var(--c1); } .p2 { fill: var(--c2); } .p3 { fill: var(--c3); }
.p4 { fill: var(--c4); } .p5 { fill: var(--c5); } .p6 { fill: var(--c6); } .p7 { fill: var(--c7); }
"""
_HEADS = "".join(
    f'<marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
    f'<path d="M0 .8 7.2 4 0 7.2z" fill="var(--{colour})"/></marker>'
    for kind, colour in (("fork", "ink"), ("exit", "child"), ("wake", "wake"))
)
_SAYS = {READY: "ready, waits for a CPU", BLOCKED: "blocked", STOPPED: "stopped by a signal"}


def svg(picture: Picture, history: History, title: str, engine: str) -> str:
    """The whole file."""
    height = f"{picture.height:.0f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {picture.width} {height}" width="{picture.width}" '
        f'height="{height}" role="img">',
        f"<style>{_STYLE}</style><defs>{_HEADS}</defs>",
        '<rect width="100%" height="100%" fill="var(--paper)"/>',
        *_title(picture, history, title, engine),
        *_axis(picture),
        *(part for lane in picture.lanes for part in _lane(lane, picture)),
        *(part for row in picture.rows for part in _row(row, picture)),
        *(_arrow(arrow, picture) for arrow in picture.arrows),
        *(part for row in picture.rows for part in _marks(row, picture)),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _title(picture: Picture, history: History, title: str, engine: str) -> list[str]:
    processes = len(history.processes)
    facts = [
        count(processes, "process", "processes"), count(len(picture.lanes), "CPU"),
        duration(history.until - history.began),
        count(history.process_switches, "process switch", "process switches"),
        count(history.thread_switches, "thread switch", "thread switches"), f"engine {engine}",
    ]  # fmt: skip
    axis = picture.axis
    begin, end = axis.begin - axis.zero, axis.end - axis.zero
    if begin or axis.end < history.until:
        facts.append(f"here {duration(begin)} to {duration(end)}")
    most = int((picture.width - 40) / 10.3)
    title = title if len(title) <= most else title[: most - 1] + "…"
    return [
        f"<title>{_safe(title)}</title>",
        f'<text x="20" y="32" class="t">{_safe(title)}</text>',
        f'<text x="20" y="52" class="d">{_safe("  ·  ".join(facts))}</text>',
        *_legend(picture),
    ]


def _legend(picture: Picture) -> list[str]:
    x, y = 20.0, 74
    parts = []

    def entry(mark: str, words: str) -> None:
        nonlocal x
        parts.append(f'<g transform="translate({x:.1f} {y})">{mark}<text x="24" y="4" class="d s">{words}</text></g>')
        x += 24 + len(words) * 5.7 + 22

    for lane in picture.lanes[:_COLOURS]:
        entry(f'<rect y="-5" width="18" height="10" rx="2" class="p{lane.cpu % _COLOURS}"/>', f"on CPU {lane.cpu}")
    entry('<rect y="-2" width="18" height="4" class="ready"/>', "ready")
    entry('<rect y="-.75" width="18" height="1.5" class="blocked"/>', "blocked")
    entry('<rect y="-2" width="18" height="4" class="stopped"/>', "stopped")
    entry('<path d="M0 0H17" class="fork" marker-end="url(#fork)"/>', "fork")
    entry('<path d="M6 -7 13 -7 9.5 0z" class="exec" transform="translate(0 3)"/>', "exec")
    entry('<path d="M0 0H17" class="exit" marker-end="url(#exit)"/>', "exit ends a wait")
    entry('<path d="M0 0H17" class="wake" marker-end="url(#wake)"/>', "other wake-ups")
    entry('<rect x="5" y="-4" width="8" height="8" class="end"/>', "exit 0")
    entry('<rect x="5" y="-4" width="8" height="8" class="failed"/>', "failed or killed")
    return parts


def _axis(picture: Picture) -> list[str]:
    bottom = picture.height - 16
    y = TOP + AXIS - 10
    labels = (y, bottom + 11) if picture.height > _TALL else (y,)
    marks = [f'<path d="M{tick.x:.1f} {y + 5}V{bottom:.0f}" class="g"/>' for tick in picture.ticks]
    marks += [
        f'<text x="{tick.x:.1f}" y="{place:.0f}" class="d s c">{tick.label}</text>'
        for tick in picture.ticks
        for place in labels
    ]
    return [
        *marks,
        f'<text x="{picture.width - 94}" y="{y}" class="d s e">CPU time</text>',
        f'<text x="{picture.width - 84}" y="{y}" class="d s">status</text>',
    ]


def _lane(lane: Lane, picture: Picture) -> list[str]:
    colour = lane.cpu % _COLOURS
    parts = [f'<text x="{picture.axis.left - 10:.1f}" y="{lane.y + 4:.1f}" class="d s e">CPU {lane.cpu}</text>']
    for box in lane.boxes:
        name = picture.names.get(box.of, "?")
        parts.append(
            f'<rect x="{box.x:.2f}" y="{lane.y - 7:.1f}" width="{max(box.width - 0.4, 0.4):.2f}" height="14" '
            f'class="p{colour}"{_pale(box)}><title>{_safe(f"{name} ({box.of}) on CPU {lane.cpu}")}</title></rect>'
        )
        room = int((box.width - 8) / 6.3)
        if room >= min(len(name), 4):
            parts.append(
                f'<text x="{box.x + box.width / 2:.1f}" y="{lane.y + 3.6:.1f}" class="s m i c" '
                f'pointer-events="none">{_safe(name[:room])}</text>'
            )
    right = picture.width - 94
    parts.append(f'<text x="{right}" y="{lane.y + 4:.1f}" class="d s e">{lane.busy * 100:.0f} % busy</text>')
    return parts


def _row(row: Row, picture: Picture) -> list[str]:
    scale = picture.scale
    size = f'style="font-size:{scale.letters}px"'
    x = 78 + row.depth * indent(scale) - 12
    base = row.y + scale.letters * 0.35
    parts = [
        f'<g class="row"><rect class="band" x="8" y="{row.y - scale.row / 2:.1f}" width="{picture.width - 16}" '
        f'height="{scale.row}"/>',
        f'<text x="52" y="{base:.1f}" class="d m e" {size}>{row.thread.tid}</text>',
        f'<text x="{x:.1f}" y="{base:.1f}" class="m" {size}>{_safe(row.label)}'
        f"<title>{_safe(_about(row))}</title></text>",
    ]
    if row.parent >= 0:
        bend = x - indent(scale) / 2 - 1
        top = picture.rows[row.parent].y + scale.row * 0.34
        parts.append(f'<path d="M{bend:.1f} {top:.1f}V{row.y:.1f}H{x - 3:.1f}" class="tree"/>')
    parts += [_box(box, row, picture) for box in row.boxes]
    if scale.roomy:
        parts += [_words(box, row) for box in row.boxes if box.span.state == BLOCKED]
    return [*parts, *_result(row, picture, base, size), "</g>"]


def _box(box: Box, row: Row, picture: Picture) -> str:
    span = box.span
    bar = picture.scale.bar
    high, kind = {
        RUNNING: (bar, f"p{span.cpu % _COLOURS}"),
        READY: (max(bar * 0.3, 2), "ready"),
        BLOCKED: (1.5 if picture.scale.roomy else 1, "blocked"),
        STOPPED: (max(bar * 0.3, 2), "stopped"),
    }[span.state]
    says = f"on CPU {span.cpu}" if span.state == RUNNING else _SAYS[span.state]
    what = f": {span.what}" if span.what else ""
    note = f"{says}{what}, {duration(span.end - span.start)} from {duration(span.start - picture.axis.zero)} on"
    round_ends = ' rx="2"' if span.state == RUNNING and box.width > 4 else ""
    return (
        f'<rect x="{box.x:.2f}" y="{row.y - high / 2:.2f}" width="{box.width:.2f}" height="{high:.2f}"{round_ends} '
        f'class="{kind}"{_pale(box)}><title>{_safe(note)}</title></rect>'
    )


def _pale(box: Box) -> str:
    """The less of a box was really filled, the paler it is; never so pale that it is not seen."""
    return f' opacity="{max(box.cover, 0.45):.2f}"' if box.cover < 0.9 else ""


def _words(box: Box, row: Row) -> str:
    """What it is blocked on, above the line, where there is room."""
    words = box.span.what
    room = int((box.width - 10) / 5.6)
    if not words or room < len(words):
        return ""
    return (
        f'<text x="{box.x + 6:.1f}" y="{row.y - 3:.1f}" class="d" style="font-size:9px" '
        f'pointer-events="none">{_safe(words)}</text>'
    )


def _result(row: Row, picture: Picture, base: float, size: str) -> list[str]:
    process = row.process
    if row.thread.tid != process.pid or process.end is None:
        return []
    how = status(process)
    bad = " b" if how != "0" else " d"
    took = duration(process.end.cpu_ns)
    return [
        f'<text x="{picture.width - 94}" y="{base:.1f}" class="d e" {size}>{took}</text>',
        f'<text x="{picture.width - 84}" y="{base:.1f}" class="{bad.strip()}" {size}>{_safe(how)}</text>',
    ]


def _about(row: Row) -> str:
    process = row.process
    lines = [f"{process.pid}: {command(process)}"]
    lines += [f"exec {program.program}: {' '.join(program.arguments)}" for program in process.programs[:8]]
    if process.end is not None:
        end = process.end
        faults = end.minor_faults + end.major_faults
        kernel = f", {duration(end.system_ns)} of it in the kernel" if end.system_ns else ""
        lines.append(f"{duration(end.cpu_ns)} of CPU time{kernel}")
        lines.append(f"{faults:,} page faults, {process.calls:,} system calls, {end.peak_pages:,} pages at most")
    if process.longest_wait is not None:
        lines.append(f"longest wait: {duration(process.longest_wait.duration)} for {process.longest_wait.what}")
    return "\n".join(lines)


def _arrow(arrow: Arrow, picture: Picture) -> str:
    """Vertical, from the bar of one row to the bar of the other."""
    step = picture.scale.bar / 2 * (1 if arrow.end > arrow.start else -1)
    return (
        f'<path d="M{arrow.x:.1f} {arrow.start + step:.1f}V{arrow.end - step:.1f}" class="{arrow.kind}" '
        f'marker-end="url(#{arrow.kind})"><title>{_safe(arrow.note)}</title></path>'
    )


def _marks(row: Row, picture: Picture) -> list[str]:
    """Where the process became another program, and where it ended."""
    if row.thread.tid != row.process.pid or not row.boxes:
        return []
    half = picture.scale.bar / 2
    wide = half * 0.62
    parts = []
    for program in filter(lambda program: picture.axis.shows(program.time), row.process.programs):
        x, y = picture.axis.place(program.time), row.y - half
        parts.append(
            f'<path d="M{x - wide:.1f} {y - 2:.1f}H{x + wide:.1f}L{x:.1f} {y + half:.1f}z" class="exec">'
            f"<title>{_safe(f'exec {program.program}: ' + ' '.join(program.arguments))}</title></path>"
        )
    end = row.process.end
    if end is not None and picture.axis.shows(end.time):
        x = max(box.end for box in row.boxes)
        kind = "end" if status(row.process) == "0" else "failed"
        side = max(half * 0.9, 3)
        parts.append(
            f'<rect x="{x:.1f}" y="{row.y - side / 2:.1f}" width="{side:.1f}" height="{side:.1f}" class="{kind}">'
            f"<title>{_safe('ended: ' + status(row.process))}</title></rect>"
        )
    return parts


def _safe(text: str) -> str:
    """Fit for a page, control characters written out, lines kept."""
    return escape("\n".join(map(printable, text.split("\n"))))
