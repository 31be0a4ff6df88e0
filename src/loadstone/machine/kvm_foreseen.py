"""Calls whose answer the kernel knows before they are made: answered in the guest, and carried out by the kernel later.

A program that starts tells the kernel where its thread's words are, asks who it is, and closes what it has mapped. No
such call does anything that the program could see before it leaves the guest for something else. So the kernel says
beforehand what the answer will be; the code of entry.s gives it, once, and notes the call; and when the program is out
of the guest, before anybody looks, the calls are carried out as they were made.

What the data page has for it (entry.s has the same offsets):

- a byte for each number: which row says more of the call, 0 for none;
- a row for each kind: a mask and what it must leave of the first argument, the same of the second, the answer;
- how many were made, and a note of each: number, first and second argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loadstone.lean import Protocol

if TYPE_CHECKING:
    from loadstone.machine.kvm_answers import ReadAnswers

CLOSE, BRK, GETPID, ARCH_PRCTL, GETTID, SET_TID_ADDRESS, SET_ROBUST_LIST = 3, 12, 39, 158, 186, 218, 273
_ARCH_SET_FS = 0x1002
_ALL, _INT = (1 << 64) - 1, (1 << 32) - 1

# Number; mask and value of the first and of the second argument. The value of a descriptor is still to be set.
FORMS = (
    (CLOSE, _INT, 0, 0, 0),
    (BRK, _ALL, 0, 0, 0),
    (GETPID, 0, 0, 0, 0),
    (ARCH_PRCTL, _INT, _ARCH_SET_FS, 0, 0),
    (GETTID, 0, 0, 0, 0),
    (SET_TID_ADDRESS, 0, 0, 0, 0),
    (SET_ROBUST_LIST, 0, 0, _ALL, 24),
)
_ROW_OF = {form[0]: row for row, form in enumerate(FORMS, 1)}

# Words of the data page, and of a row.
MADE, ROWS, NOTES, ROWS_OF = 23, 16, 88, 384
ROW_WORDS, NOTE_WORDS, MOST_MADE, CALLS = 8, 4, 8, 336
_FIRST_VALUE, _ANSWER = 1, 4

# What a program was left for last, beside the numbers of system calls.
SWITCHED, NO_CALL = -1, -2
_OPENING = frozenset((2, 257))  # open, openat
_FILES_STAY = frozenset(
    (NO_CALL, 0, 5, 8, 9, 10, 11, 17, 262)
)  # read fstat lseek mmap mprotect munmap pread newfstatat
_ENDING = frozenset((SWITCHED, 157))  # prctl: PR_SET_MM moves the break


class CallsKeeper(Protocol):
    """Whoever knows the answers."""

    def may_answer(self) -> bool:
        """Whether calls may be answered in the guest: nobody listens to them, traces or filters."""

    def foreseen(self) -> Sequence[tuple[int, int]]:
        """Number and answer, for the thread about to run, of what stays true until it makes such a call."""

    def closes_quietly(self, descriptor: int) -> bool:
        """Whether nobody will notice that `descriptor` is closed a little later than the program says."""

    def carry_out(self, number: int, first: int, second: int) -> None:
        """The program has made this call."""


class ForeseenCalls:
    """The part of the data page that has the answers. `words` is the page, `fresh` what it is made from.

    Attributes:
        is_open: whether there may be any.
    """

    __slots__ = ("_bytes", "_closing", "_words", "is_open")

    def __init__(self, words: memoryview, fresh: memoryview) -> None:
        self._words = words
        self._bytes = words.cast("B")[8 * ROWS_OF : 8 * ROWS_OF + CALLS]
        self.is_open = self._closing = False
        for row, (_, *conditions) in enumerate(FORMS, 1):
            for place, word in enumerate(conditions, ROWS + ROW_WORDS * row):
                fresh[place] = word

    def open(self, keeper: CallsKeeper) -> None:
        """A thread or an image is about to run that is new, and will make such calls."""
        self.withdraw()
        if keeper.may_answer():
            self.is_open = True
            for number, answer in keeper.foreseen():
                self._offer(number, answer)

    def go_on(self, keeper: CallsKeeper, called: int, result: int, reader: ReadAnswers | None) -> None:
        """The program goes on, after the system call `called` with `result`; or it was SWITCHED to."""
        if called in _ENDING or not keeper.may_answer():
            self.withdraw()
        elif called in _OPENING:
            self._closing = keeper.closes_quietly(result)
            if self._closing:
                self._words[ROWS + ROW_WORDS * _ROW_OF[CLOSE] + _FIRST_VALUE] = result & _INT
                self._offer(CLOSE, 0)
        elif self._closing and (called not in _FILES_STAY or (reader is not None and reader.keeper is not None)):
            self._closing = False  # of what is read in the guest as well, the end has to be seen there
            self._bytes[CLOSE] = 0
        if called in _ROW_OF and called != CLOSE:  # it was not as foreseen
            self._bytes[called] = 0

    def _offer(self, number: int, answer: int) -> None:
        row = _ROW_OF[number]
        self._words[ROWS + ROW_WORDS * row + _ANSWER] = answer
        self._bytes[number] = row

    def withdraw(self) -> None:
        """Nothing is foreseen any more."""
        if self.is_open:
            self._bytes[:] = bytes(CALLS)
            self.is_open = self._closing = False

    def settle(self, keeper: CallsKeeper) -> None:
        """The program does not run: have what it has called carried out."""
        words = self._words
        made = words[MADE]
        if not made:
            return
        words[MADE] = 0
        for note in range(min(made, MOST_MADE)):
            first = NOTES + NOTE_WORDS * note
            number, *arguments = words[first : first + 3].tolist()
            if number in _ROW_OF:  # else the program has written here
                keeper.carry_out(number, *arguments)

    def close(self) -> None:
        """The page is about to be given back."""
        self._bytes.release()
