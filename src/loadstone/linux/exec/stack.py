"""The initial stack, byte for byte as fs/exec.c (copy_strings) and fs/binfmt_elf.c (create_elf_tables) leave it.

From high to low addresses:

    stack top
      8 bytes of zeros               (linux_binprm.p starts one pointer below the top)
      the file name given to execve  AT_EXECFN points here
      the strings of envp, then of argv, each in ascending order
      (bytes that a replaced argv[0] of a script left behind)
      padding to 16 bytes, and at most 8,191 random ones with randomisation
      the platform string            AT_PLATFORM
      16 random bytes                AT_RANDOM
      padding
      the auxiliary vector, closed by AT_NULL
      envp pointers, NULL; argv pointers, NULL; argc
    stack pointer, 16-byte aligned
"""

from __future__ import annotations

import os
from errno import E2BIG
from itertools import accumulate
from operator import add as plus
from struct import iter_unpack, pack
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple
from loadstone.linux.exec import auxv
from loadstone.linux.exec.layout import PAGE, align_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.linux.exec.layout import Draws

MAX_ARG_STRLEN = 32 * PAGE  # include/uapi/linux/binfmts.h; the closing NUL counts
ARG_MAX = 131072  # include/uapi/linux/limits.h
STACK_DEFAULT = 8 << 20  # _STK_LIM
POINTER = 8  # of the kernel, for 32-bit programs too
_CODES = {8: "Q", 4: "I"}  # struct's, of a pointer of so many bytes


class Arguments:
    """The strings of one exec as they lie below the top of the new stack (`struct linux_binprm`).

    Distances are counted down from the stack top, because the top is known only after the handler was found: `depth` is
    how far `linux_binprm.p` is below it, `low` how far anything was ever written.
    """

    __slots__ = ("_image", "argument_count", "depth", "environment_count", "file_name", "limit", "low", "stack_limit")

    def __init__(
        self,
        file_name: bytes,
        argv: Sequence[bytes],
        envp: Sequence[bytes],
        stack_limit: int,
        *,
        empty_argument: bool = True,
    ) -> None:
        """Copy the strings. `stack_limit` is the soft RLIMIT_STACK; `empty_argument`: an empty argv becomes {""}.

        Raises:
            LinuxError: E2BIG (bprm_stack_limits, copy_strings).
        """
        self.stack_limit = stack_limit
        self.argument_count = len(argv)
        self.environment_count = len(envp)
        # bprm_stack_limits(): three quarters of 8 MiB or a quarter of the limit, but 128 KiB in any case.
        limit = max(min(STACK_DEFAULT // 4 * 3, stack_limit // 4), ARG_MAX)
        pointers = (max(len(argv), 1) + len(envp)) * POINTER
        if limit <= pointers:
            raise LinuxError(E2BIG, f"{len(argv)} arguments and {len(envp)} variables need more pointers than fit")
        self.limit = POINTER + limit - pointers
        if not argv and empty_argument:
            argv = (b"",)
            self.argument_count = 1
        self.file_name = POINTER + len(file_name) + 1  # the depth at which it lies
        for kind, strings in (("file name", (file_name,)), ("variable", envp), ("argument", argv)):
            longest = max(map(len, strings), default=0)
            if longest >= MAX_ARG_STRLEN:
                raise LinuxError(E2BIG, f"one {kind} has {longest} bytes, the most is {MAX_ARG_STRLEN - 1}")
        self._image = bytearray(b"\0".join((*argv, *envp, file_name, bytes(POINTER))))
        self.depth = self.low = len(self._image)
        self._check()

    def _check(self) -> None:
        """Not below `linux_binprm.argmin`, and the stack may grow so far (acct_stack_growth)."""
        if self.depth > self.limit:
            why = f"arguments and environment take {self.depth} bytes, the stack limit allows {self.limit}"
            raise LinuxError(E2BIG, why)
        pages = (self.low + PAGE - 1) & -PAGE
        if pages > max(self.stack_limit, PAGE):
            raise LinuxError(E2BIG, f"arguments and environment take {pages} bytes, the stack limit is smaller")

    def push(self, string: bytes) -> None:
        """Put one more string below the others, as the first argument (copy_string_kernel)."""
        if len(string) >= MAX_ARG_STRLEN:
            raise LinuxError(E2BIG, "an argument is too long")
        self.depth += len(string) + 1
        if self.depth > self.low:
            self._image[:0] = bytes(self.depth - self.low)
            self.low = self.depth
        start = self.low - self.depth
        self._image[start : start + len(string) + 1] = string + b"\0"
        self.argument_count += 1
        self._check()

    def remove_first(self) -> None:
        """Take away argv[0]; its bytes stay where they are (remove_arg_zero)."""
        if self.argument_count:
            start = self.low - self.depth
            self.depth -= self._image.index(0, start) + 1 - start
            self.argument_count -= 1

    @property
    def pages(self) -> int:
        """Bytes of the stack that the kernel had to get for the strings, in whole pages; at least one."""
        return (self.low + PAGE - 1) & -PAGE

    @property
    def image(self) -> bytes:
        """The last `low` bytes below the stack top."""
        return bytes(self._image)

    def strings(self) -> list[bytes]:
        """argv and then envp."""
        count = self.argument_count + self.environment_count
        return bytes(self._image[self.low - self.depth :]).split(b"\0", count)[:count]


class Word(NamedTuple):
    """One item of the initial stack, for showing: `size` bytes at `address`, what they are and what they say."""

    address: int
    size: int
    what: str
    value: int | str


class InitialStack(NamedTuple):
    """A laid-out initial stack. Addresses are absolute; `writes` is what create_elf_tables writes, in its order.

    That of an a.out program has no auxiliary vector, and `random` is empty.
    """

    pointer: int
    top: int
    word: int  # bytes of a pointer: 8, or 4 for i386
    arguments: Arguments
    platform_address: int
    platform: bytes
    random_address: int
    random: bytes
    vector: bytes  # from the stack pointer on: argc, argv, envp, auxiliary vector
    argument_start: int
    argument_end: int
    environment_start: int
    environment_end: int
    execfn: int

    @property
    def auxv(self) -> tuple[tuple[int, int], ...]:
        """The auxiliary vector without its AT_NULL."""
        if not self.random:
            return ()
        before = self.arguments.argument_count + self.arguments.environment_count + 3  # argc and two NULLs
        return tuple(iter_unpack(f"<2{_CODES[self.word]}", self.vector[before * self.word : -2 * self.word]))

    @property
    def writes(self) -> list[tuple[int, bytes]]:
        """(address, bytes) in the order in which the kernel writes them with kernel-mode faults."""
        platform = [(self.platform_address, self.platform + b"\0")] if self.platform else []
        random = [(self.random_address, self.random)] if self.random else []
        return [*platform, *random, (self.pointer, self.vector)]

    @property
    def bytes(self) -> bytes:
        """The stack's content from the stack pointer to the top."""
        content = bytearray(self.top - self.pointer)
        image = self.arguments.image[-len(content) :]
        content[len(content) - len(image) :] = image
        for address, data in self.writes:
            start = address - self.pointer
            content[start : start + len(data)] = data
        return bytes(content)

    def layout(self) -> list[Word]:
        """Every byte from the stack pointer to the top, as words, strings and padding, in ascending order."""
        return _describe(self)


def lay_out(
    arguments: Arguments,
    top: int,
    values: dict[int, int],
    order: Sequence[int],
    platform: bytes,
    random_bytes: Callable[[int], bytes],
    draws: Draws | None,
    word: int = 8,
    strings: Sequence[bytes] | None = None,
) -> InitialStack:
    """create_elf_tables(): where everything goes below `top`, and the auxiliary vector's last values.

    Args:
        arguments: the strings, already copied.
        top: the page-aligned stack top.
        values: the auxiliary vector's values by identifier, but for AT_RANDOM, AT_PLATFORM and AT_EXECFN.
        order: the identifiers in the kernel's order, without AT_NULL. Those that have no value are left out.
        platform: the string behind AT_PLATFORM, empty for none.
        random_bytes: where the 16 bytes of AT_RANDOM come from.
        draws: address-space randomisation, or None.
        word: bytes of a pointer of the program.
        strings: argv and envp, where they are not what `arguments` says.
    """
    start = top - arguments.depth
    place = align_stack(start, draws)
    platform_address = place = place - len(platform) - 1 if platform else place
    random_address = place = place - 16
    execfn = top - arguments.file_name
    values = {**values, auxv.AT_RANDOM: random_address, auxv.AT_EXECFN: execfn}
    if platform:
        values[auxv.AT_PLATFORM] = platform_address
    count = arguments.argument_count
    addresses = _addresses(arguments.strings() if strings is None else strings, start)
    environment_start, environment_end = addresses[count], addresses.pop()
    pointers = (count, *addresses[:count], 0, *addresses[count:], 0)
    vector = pack(f"<{len(pointers)}{_CODES[word]}", *pointers) + _auxiliary_vector(values, order, word)
    pointer = (place - len(vector)) & -16
    return InitialStack(
        pointer=pointer,
        top=top,
        word=word,
        arguments=arguments,
        platform_address=platform_address,
        platform=platform,
        random_address=random_address,
        random=random_bytes(16),
        vector=vector,
        argument_start=start,
        argument_end=environment_start,
        environment_start=environment_start,
        environment_end=environment_end,
        execfn=execfn,
    )


def _addresses(strings: Sequence[bytes], start: int) -> list[int]:
    """Where each string is, behind those before and their NULs, the first one at `start`; then where they end."""
    return list(map(plus, accumulate(map(len, strings), initial=start), range(len(strings) + 1)))


def _auxiliary_vector(values: dict[int, int], order: Sequence[int], word: int) -> bytes:
    mask = (1 << 8 * word) - 1  # NEW_AUX_ENT stores an elf_addr_t: a 32-bit program's AT_ENTRY may wrap around
    entries = [field for key in order if key in values for field in (key, values[key] & mask)]
    return pack(f"<{len(entries) + 2}{_CODES[word]}", *entries, auxv.AT_NULL, 0)


def lay_out_aout(arguments: Arguments, top: int) -> InitialStack:
    """create_aout_tables(): argc, the addresses of both vectors, argv and envp right below the strings; no padding.

    The stack pointer is divisible by four and no more.
    """
    word = 4
    place = top - arguments.depth
    count = arguments.argument_count
    addresses = _addresses(arguments.strings(), place)
    environment_start, environment_end = addresses[count], addresses.pop()
    envp = (place & -word) - (len(addresses) - count + 1) * word
    argv = envp - (count + 1) * word
    pointer = argv - 3 * word
    table = [count, argv, envp, *addresses[:count], 0, *addresses[count:], 0]
    return InitialStack(
        pointer=pointer,
        top=top,
        word=word,
        arguments=arguments,
        platform_address=0,
        platform=b"",
        random_address=0,
        random=b"",
        vector=b"".join([value.to_bytes(word, "little") for value in table]),
        argument_start=place,
        argument_end=environment_start,
        environment_start=environment_start,
        environment_end=environment_end,
        execfn=top - arguments.file_name,
    )


def _describe(stack: InitialStack) -> list[Word]:
    words: list[Word] = []
    size, address = stack.word, stack.pointer

    def add(length: int, what: str, value: int | str) -> None:
        nonlocal address
        words.append(Word(address, length, what, value))
        address += length

    def pad(until: int, what: str) -> None:
        if until > address:
            data = content[address - stack.pointer : until - stack.pointer]
            add(until - address, what, data.hex() if any(data) else "zeros")

    content = stack.bytes
    arguments = stack.arguments
    table = [int.from_bytes(stack.vector[at : at + size], "little") for at in range(0, len(stack.vector), size)]
    vectors = [] if stack.random else ["address of argv", "address of envp"]
    names = ["argc", *vectors, *(f"argv[{n}]" for n in range(arguments.argument_count)), "argv NULL"]
    names += [*(f"envp[{n}]" for n in range(arguments.environment_count)), "envp NULL"]
    for name in names:
        add(size, name, table[len(words)])
    if stack.random:
        for key, value in (*stack.auxv, (auxv.AT_NULL, 0)):
            add(size, f"{auxv.name(key)} type", key)
            add(size, f"{auxv.name(key)} value", value)
        pad(stack.random_address, "padding")
        add(16, "AT_RANDOM bytes", stack.random.hex())
    if stack.platform:
        add(len(stack.platform) + 1, "AT_PLATFORM string", os.fsdecode(stack.platform))
    pad(max(stack.top - arguments.low, address), "padding")
    pad(stack.argument_start, "padding (what the replaced argv[0] left)")
    for index, string in enumerate(arguments.strings()):
        first = index < arguments.argument_count
        number = index if first else index - arguments.argument_count
        add(len(string) + 1, f"{'argv' if first else 'envp'}[{number}] string", os.fsdecode(string))
    add(stack.top - POINTER - address, "AT_EXECFN string", os.fsdecode(content[-arguments.file_name : -POINTER - 1]))
    add(POINTER, "end marker", 0)
    return words
