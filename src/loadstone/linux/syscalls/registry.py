"""The registry of system calls: one line above a plain function drives dispatch, trace and documentation.

    @syscall(support=PARTIAL, note="MAP_HUGETLB is ignored")
    def mmap(task: Task, address: Address, length: Size, ...) -> Address: ...

The decorator only leaves a mark on the function. A call's name leads to its module through `AREAS`, so that a program
pays for the areas it uses; annotations are resolved and compiled at a call's first use.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from loadstone.linux.syscalls.areas import AREAS
from loadstone.linux.syscalls.arguments import Kind, decoder_source, kind

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.abi import Abi

Handler = TypeVar("Handler", bound=Callable[..., Any])

# How much of the call as its manual page describes it works; `note` says what does not.
FULL, PARTIAL, NOTHING = "full", "partial", "nothing"

_MARK = "loadstone_syscall"
_MOST_ROWS = 2000


class Mark:
    """What the decorator was given."""

    __slots__ = ("name", "note", "support")

    def __init__(self, name: str, support: str, note: str) -> None:
        self.name = name
        self.support = support
        self.note = note


def syscall(support: str = FULL, note: str = "", *, name: str = "") -> Callable[[Handler], Handler]:
    """Mark a function as the handler of the system call of the same name (or of `name`).

    Parameters: the task, then up to six ints annotated with types of `arguments`. A handler raises `LinuxError` for
    -errno, and returns the result as an int; None when it leaves the registers as they must be (exit, exec, sigreturn);
    or a `Blocking` generator.
    """

    def mark(function: Handler) -> Handler:
        setattr(function, _MARK, Mark(name or function.__name__, support, note))
        return function

    return mark


class SystemCall:
    """One row of the table, with or without a handler. `calls` counts its uses."""

    __slots__ = ("calls", "function", "invoke", "kinds", "name", "note", "number", "parameters", "result", "support")

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.calls = 0
        self.function: Callable[..., Any] | None = None
        self.invoke: Callable[[Task, tuple[int, ...]], Any] | None = None
        self.kinds: tuple[Kind, ...] = ()
        self.parameters: tuple[str, ...] = ()
        self.result = kind("int")
        self.support = NOTHING
        self.note = ""


class Registry:
    """The system calls of one ABI; rows are filled in as they are asked for."""

    def __init__(self, abi: Abi) -> None:
        self.abi = abi
        self._rows: dict[int, SystemCall] = {}
        self._callers: dict[tuple[int, ...], Callable[..., Any]] = {}  # by the shape of the arguments
        self._through: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None

    def row(self, number: int) -> SystemCall:
        """The row of `number`; one without a handler (`invoke` is None) when the call is unknown here."""
        row = self._rows.get(number)
        if row is None:
            row = SystemCall(number, self.abi.name(number))
            if number in self.abi.names or len(self._rows) < _MOST_ROWS:  # a program may try every number there is
                self._rows[number] = row
            area = AREAS.get(row.name)
            if area is not None:
                self._fill(row, area)
        return row

    def used(self) -> list[SystemCall]:
        """The rows of calls that were made, by number."""
        return [row for _, row in sorted(self._rows.items()) if row.calls]

    def all(self) -> list[SystemCall]:
        """Every row of the ABI, by number."""
        return [self.row(number) for number in sorted(self.abi.names)]

    def _fill(self, row: SystemCall, area: str) -> None:
        function = handlers(area).get(row.name)
        if function is None:
            return
        mark: Mark = getattr(function, _MARK)
        row.function, row.support, row.note = function, mark.support, mark.note
        annotations = dict(function.__annotations__)
        row.result = kind(annotations.pop("return", "int").split(" ", 1)[0])
        arguments = list(annotations.items())[1:]
        row.parameters = tuple(name for name, _ in arguments)
        row.kinds = tuple(kind(text) for _, text in arguments)
        if mark.support != NOTHING:
            self._make_invoke(row)

    def call_through(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """From now on handlers are called through what `wrap` makes of them."""
        self._through = wrap
        for row in self._rows.values():
            if row.invoke is not None:
                self._make_invoke(row)

    def _make_invoke(self, row: SystemCall) -> None:
        function = row.function
        assert function is not None
        called = function if self._through is None else self._through(function)
        row.invoke = self._caller(tuple(kind.width for kind in row.kinds))(called)

    def _caller(self, widths: tuple[int, ...]) -> Callable[..., Any]:
        caller = self._callers.get(widths)
        if caller is None:
            caller = self._callers[widths] = eval(decoder_source(widths), {})
        return caller


def handlers(area: str) -> dict[str, Callable[..., Any]]:
    """The handlers that module `area` defines, by the name of the call; empty while there is no such module."""
    path = f"loadstone.linux.syscalls.{area}"
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        return {}
    return {mark.name: value for value in vars(module).values() if (mark := getattr(value, _MARK, None)) is not None}
