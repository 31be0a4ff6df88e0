"""userfaultfd(2) and its ioctls: registering memory, and bringing pages (fs/userfaultfd.c, mm/userfaultfd.c)."""

from __future__ import annotations

from errno import EAGAIN, EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.userfault import FEATURES, USER_MODE_ONLY, UserFaultFile
from loadstone.machine.paging import DIRTY, FRAME_MASK
from loadstone.machine.physical import ANONYMOUS
from loadstone.memory.entries import anonymous_entry, zero_entry
from loadstone.memory.merge import prepare_anon_vma
from loadstone.memory.remap import move_entries
from loadstone.memory.user import copy_in, copy_out
from loadstone.memory.vma import MAYSHARE, MAYWRITE, PAGE
from loadstone.vfs.flags import O_CLOEXEC, O_NONBLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import UHex
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.vma import Vma

# include/uapi/linux/userfaultfd.h
API = 0xAA
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_UNREGISTER, UFFDIO_WAKE = 0xC018AA3F, 0xC020AA00, 0x8010AA01, 0x8010AA02
UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_MOVE = 0xC028AA03, 0xC020AA04, 0xC028AA05
_MODE_MISSING = 1
_DONT_WAKE, _ALLOW_HOLES = 1, 2
_API_IOCTLS = 1 << 0 | 1 << 1 | 1 << 0x3F  # register, unregister, api
_RANGE_IOCTLS = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5  # wake, copy, zero page, move
_PAIR, _TRIPLE, _QUAD, _RESULT = Struct("<QQ"), Struct("<QQQ"), Struct("<QQQQ"), Struct("<q")


@syscall(
    PARTIAL, "absent pages of private memory; no write protection, minor faults, poison, events of fork and mremap"
)
def userfaultfd(task: Task, flags: UHex) -> int:
    """userfaultfd(2)."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY):
        raise LinuxError(EINVAL)
    process = task.process
    only_user = bool(flags & USER_MODE_ONLY)
    if not only_user and process.credentials.euid:
        raise LinuxError(EPERM, "faults of the kernel's own accesses are for CAP_SYS_PTRACE")
    file = UserFaultFile(task.kernel.vfs, process.space, flags & O_NONBLOCK, only_user=only_user)
    return process.files.install(file, cloexec=bool(flags & O_CLOEXEC))


def answer(task: Task, file: UserFaultFile, request: int, argument: int) -> int:
    """One ioctl on a userfaultfd. Raises LinuxError."""
    if file.features is None and request != UFFDIO_API:
        raise LinuxError(EINVAL, "UFFDIO_API comes first")
    action = _ACTIONS.get(request)
    if action is None:
        raise LinuxError(EINVAL, f"userfaultfd has no request {request:#x}")
    action(task, file, argument)
    return 0


def _agree(task: Task, file: UserFaultFile, argument: int) -> None:
    space = task.process.space
    api, features, _ = _TRIPLE.unpack(copy_in(space, argument, _TRIPLE.size))
    if file.features is not None or api != API or features & ~FEATURES:
        copy_out(space, argument, bytes(_TRIPLE.size))
        raise LinuxError(EINVAL, "an API or features that are not there")
    copy_out(space, argument, _TRIPLE.pack(api, FEATURES, _API_IOCTLS))
    file.features = features


def _register(task: Task, file: UserFaultFile, argument: int) -> None:
    caller, space = task.process.space, file.space
    start, length, mode = _TRIPLE.unpack(copy_in(caller, argument, _TRIPLE.size))
    if mode != _MODE_MISSING:
        raise LinuxError(EINVAL, "only UFFDIO_REGISTER_MODE_MISSING")
    end = _range(space, start, length)
    vmas = _vmas(space, start, end)
    for vma in vmas:
        if vma.backing is not None or vma.flags & MAYSHARE or vma.name:
            raise LinuxError(EINVAL, "only private anonymous memory")
        if not vma.flags & MAYWRITE:
            raise LinuxError(EPERM)
        if vma.userfault not in (None, file):
            raise LinuxError(EBUSY, "another userfaultfd has it")
    for vma in vmas:
        if vma.userfault is None:
            file.register(vma, max(vma.start, start), min(vma.end, end))
    copy_out(caller, argument + _TRIPLE.size, _RANGE_IOCTLS.to_bytes(8, "little"))


def _unregister(task: Task, file: UserFaultFile, argument: int) -> None:
    start, length = _PAIR.unpack(copy_in(task.process.space, argument, _PAIR.size))
    end = _range(file.space, start, length)
    for vma in _vmas(file.space, start, end):
        if vma.userfault is file:
            file.unregister(vma, max(vma.start, start), min(vma.end, end))


def _wake(task: Task, file: UserFaultFile, argument: int) -> None:
    start, length = _PAIR.unpack(copy_in(task.process.space, argument, _PAIR.size))
    file.wake_range(start, _range(file.space, start, length))


def _range(space: AddressSpace, start: int, length: int) -> int:
    """The end of a range; EINVAL for what is none (kernel: validate_range)."""
    end = start + length
    if (start | length) & PAGE - 1 or not length or start < space.layout.mmap_min_addr or end > space.layout.task_size:
        raise LinuxError(EINVAL, f"{start:#x} and {length:#x} bytes are no range")
    return end


def _vmas(space: AddressSpace, start: int, end: int) -> list[Vma]:
    """What is mapped in the range: ENOMEM if nothing is from there on, EINVAL if nothing is there."""
    if space.vmas.find(start) is None and space.vmas.find_after(start) is None:
        raise LinuxError(ENOMEM)
    found = space.vmas.overlapping(start, end)
    if not found:
        raise LinuxError(EINVAL, "nothing is mapped there")
    return found


# ------------------------------------------------------------------------------------------------ bringing pages


def _copy(task: Task, file: UserFaultFile, argument: int) -> None:
    caller, space = task.process.space, file.space
    target, source, length, mode = _QUAD.unpack(copy_in(caller, argument, _QUAD.size))
    end = _range(space, target, length)
    if mode & ~_DONT_WAKE or source + length >= 1 << 64:
        raise LinuxError(EINVAL)
    vma = _registered(file, target, end)

    def bring(page: int) -> None:
        slot = _vacant(space, page)
        data = copy_in(caller, source + page - target, PAGE)
        prepare_anon_vma(space, vma)
        frame = space.memory.allocate(ANONYMOUS)
        space.memory.page(frame)[:] = data
        space.memory.words[slot] = anonymous_entry(vma, frame) | DIRTY
        space.resident_pages += 1

    _bring_all(task, file, range(target, end, PAGE), bring, argument + _QUAD.size, mode)


def _zero_page(task: Task, file: UserFaultFile, argument: int) -> None:
    start, length, mode = _TRIPLE.unpack(copy_in(task.process.space, argument, _TRIPLE.size))
    end = _range(file.space, start, length)
    if mode & ~_DONT_WAKE:
        raise LinuxError(EINVAL)
    vma, memory = _registered(file, start, end), file.space.memory

    def bring(page: int) -> None:
        memory.words[_vacant(file.space, page)] = zero_entry(vma, memory.zero_frame)

    _bring_all(task, file, range(start, end, PAGE), bring, argument + _TRIPLE.size, mode)


def _move(task: Task, file: UserFaultFile, argument: int) -> None:
    """The pages themselves change places; they must be the process's own."""
    space = file.space
    target, source, length, mode = _QUAD.unpack(copy_in(task.process.space, argument, _QUAD.size))
    end, _ = _range(space, target, length), _range(space, source, length)
    if mode & ~(_DONT_WAKE | _ALLOW_HOLES):
        raise LinuxError(EINVAL)
    vma, origin = _registered(file, target, end), space.vmas.find(source)
    if origin is None or origin.end < source + length or origin.backing is not None or origin.flags & MAYSHARE:
        raise LinuxError(EINVAL, "pages can be moved out of one private anonymous mapping")

    def bring(page: int) -> None:
        _vacant(space, page)
        here = page + source - target
        entry = space.page_table.entry(here)
        if not entry:
            if mode & _ALLOW_HOLES:
                return
            raise LinuxError(ENOENT, "nothing to move")
        if not space.memory.is_exclusive((entry & FRAME_MASK) >> 12):
            raise LinuxError(EBUSY, "the page is shared with another process")
        prepare_anon_vma(space, vma)
        move_entries(space, here, here + PAGE, target - source)

    _bring_all(task, file, range(target, end, PAGE), bring, argument + _QUAD.size, mode)


def _registered(file: UserFaultFile, start: int, end: int) -> Vma:
    """The one VMA of the range, which must be registered; ENOENT."""
    vma = file.space.vmas.find(start)
    if vma is None or vma.end < end or vma.userfault is None:
        raise LinuxError(ENOENT, "not one registered mapping")
    return vma


def _vacant(space: AddressSpace, page: int) -> int:
    """The slot of a page's entry, which must be absent; EEXIST."""
    slot = space.page_table.slot(page)
    if space.memory.words[slot]:
        raise LinuxError(EEXIST, "the page is there already")
    return slot


def _bring_all(
    task: Task, file: UserFaultFile, pages: range, bring: Callable[[int], None], result: int, mode: int
) -> None:
    """Bring page after page; what was done, or the error of the first, goes to `result`. Then those who wait go on."""
    done, error = 0, None
    for page in pages:
        try:
            bring(page)
        except LinuxError as failed:
            error = failed
            break
        done += PAGE
    copy_out(task.process.space, result, _RESULT.pack(done if done or error is None else -error.errno))
    if error is not None and not done:
        raise error
    if not mode & _DONT_WAKE:
        file.wake_range(pages.start, pages.start + done)
    if error is not None:
        raise LinuxError(EAGAIN, f"{done} bytes were brought")


_ACTIONS: dict[int, Callable[[Task, UserFaultFile, int], None]] = {
    UFFDIO_API: _agree,
    UFFDIO_REGISTER: _register,
    UFFDIO_UNREGISTER: _unregister,
    UFFDIO_WAKE: _wake,
    UFFDIO_COPY: _copy,
    UFFDIO_ZEROPAGE: _zero_page,
    UFFDIO_MOVE: _move,
}
