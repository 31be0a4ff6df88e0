"""The files of /proc/PID and of /proc/PID/task/TID: which there are, and where their facts come from."""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT, EPERM, ESRCH
from struct import pack
from typing import TYPE_CHECKING, TypeVar

from loadstone.errors import LinuxError
from loadstone.linux.mounts import mount_lines, mount_number
from loadstone.linux.of_task import linux_of, pids_of
from loadstone.linux.proc import machine_text, text
from loadstone.linux.proc.facts import area_facts, memory_facts, oom_score, process_facts
from loadstone.linux.proc.files import PROC_DEVICE, Directory, MountsFile, ProcessDirectory, ProcFile, process_number
from loadstone.linux.proc.memory import MemoryFile, PagemapFile
from loadstone.linux.seq_file import LINES, SMAPS
from loadstone.linux.state import DEFAULT_SLACK, PR_GET_TIMERSLACK, process_state
from loadstone.vfs.flags import O_CLOEXEC, S_IFDIR, S_IFLNK, S_IFREG
from loadstone.vfs.generated import GeneratedDirectory, MagicLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.namespaces.pids import PidNamespace
    from loadstone.linux.proc.files import Make, Produce
    from loadstone.linux.proc.text import ProcessFacts
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Entry, Inode
    from loadstone.vfs.location import Location

_OF_MOUNTS = ("mounts", "mountinfo")
_RECORDS = {"maps": LINES, "smaps": SMAPS}
_OF_MEMORY = ("environ", "auxv", "cmdline", "statm", "maps", "smaps")

_WITHOUT_PROCESS = ("auxv", "mounts", "mountinfo", "mountstats")  # who has the file open has what it tells of
_EMPTY_WITHOUT = ("children", "environ")


def _nothing() -> bytes:
    return b""


Made = TypeVar("Made", bound=Directory)


class ProcessFiles:
    """The files of /proc/PID, or of /proc/PID/task/TID. `number` is the directory's inode number; its files follow.

    `pids`: the PID namespace whose numbers this /proc shows, None for the machine's first.
    """

    def __init__(
        self, kernel: Kernel, process: Process, task: Task, number: int, pids: PidNamespace | None = None
    ) -> None:
        self.pids = pids
        self.kernel = kernel
        self.process = process
        self.task = task
        self.number = number
        self.now = kernel.clock.realtime_ns()

    def of_process(self) -> Directory:
        """/proc/PID."""
        made = self._directory(ProcessDirectory, {"task": (S_IFDIR, self.tasks)}, links=9)
        made.process = self.process
        return made

    def of_thread(self) -> Directory:
        """/proc/PID/task/TID."""
        children = self.maker(self.number + 99, 0o444, self.while_there("children", self.children), None, b"")
        return self._directory(Directory, {"children": (S_IFREG, children)}, links=7)

    def children(self) -> bytes:
        """The numbers of its children; all of a process's are listed with its first thread."""
        first = self.task is self.process.tasks[0]
        return b"".join(b"%d " % self.seen(pid) for pid in self.process.children) if first else b""

    def seen(self, number: int) -> int:
        """What a process or thread is called here; 0 for one that is not in the namespace."""
        return number if self.pids is None else self.pids.seen(number)

    def _directory(self, kind: type[Made], table: dict[str, tuple[int, Make]], links: int) -> Made:
        """The files that both have, after those in `table`; `links` is st_nlink."""
        number = self.number
        table["fd"] = S_IFDIR, self.descriptors
        table["fdinfo"] = S_IFDIR, self.descriptor_texts
        table["ns"] = S_IFDIR, self.namespaces
        table["net"] = S_IFDIR, self.network
        files = self.files()
        ended = self.process.status is not None
        for at, (name, (mode, produce, accept)) in enumerate(files.items(), 8):
            if ended and name in _OF_MEMORY:  # a zombie has none
                produce = _nothing
            text = self.while_there(name, produce)
            make = self.maker(number + at, mode, text, accept, _RECORDS.get(name, b""))
            table[name] = S_IFREG, self.mounts_maker(number + at, produce) if name in _OF_MOUNTS else make
        table["mem"] = S_IFREG, lambda: MemoryFile(self.process, PROC_DEVICE, number + 100)
        table["pagemap"] = S_IFREG, lambda: PagemapFile(self.process, PROC_DEVICE, number + 98)
        for at, (name, (shown, place)) in enumerate(self.links().items(), 101):
            table[name] = S_IFLNK, self.linker(number + at, shown, place)
        made = kind(table, inode=number, now_ns=self.now)
        made.uid, made.gid = self.process.credentials.euid, self.process.credentials.egid
        made.nlink = links
        return made

    def maker(
        self, number: int, mode: int, produce: Produce, accept: Callable[[bytes], None] | None, record: bytes
    ) -> Make:
        """What makes one text file."""
        who = self.process.credentials
        return lambda: ProcFile(
            produce, inode=number, mode=mode, uid=who.euid, gid=who.egid, now_ns=self.now, accept=accept, record=record
        )

    def mounts_maker(self, number: int, produce: Produce) -> Make:
        """What makes one text on mounts."""
        who, mounts = self.process.credentials, self.kernel.vfs.mounts
        return lambda: MountsFile(produce, mounts, inode=number, uid=who.euid, gid=who.egid, now_ns=self.now)

    def while_there(self, name: str, produce: Produce) -> Produce:
        """`produce`, but ESRCH where the file is still open once the process is gone (kernel: get_proc_task)."""
        process = self.process
        if name in _WITHOUT_PROCESS:
            return produce

        def text() -> bytes:
            if process.tasks:
                return produce()
            if name in _EMPTY_WITHOUT:
                return b""
            raise LinuxError(ESRCH, f"process {process.pid} is gone")

        return text

    def linker(self, number: int, shown: Callable[[], str], place: Callable[[], Location | None]) -> Make:
        """What makes one link."""

        def make() -> Inode:
            link = MagicLink(shown, place, device=PROC_DEVICE, inode=number)
            link.uid, link.gid = self.process.credentials.euid, self.process.credentials.egid
            link.atime_ns = link.mtime_ns = link.ctime_ns = self.now
            return link

        return make

    def control_group(self) -> bytes:
        """The path of its control group."""
        group = process_state(self.process).cgroup
        if group is None or self.process.status is not None:
            return b"0::/\n"
        return text.encode(f"0::{group.path}{' (deleted)' if group.gone else ''}\n")

    def files(self) -> dict[str, tuple[int, Produce, Callable[[bytes], None] | None]]:
        """Name -> (permissions, text, what takes writes), in the kernel's order (fs/proc/base.c)."""
        kernel, process, task = self.kernel, self.process, self.task
        return {
            "environ": (0o400, self.environment, None),
            "auxv": (0o400, self.auxiliary_vector, None),
            "status": (0o444, lambda: text.status(self.facts()), None),
            "personality": (0o400, lambda: b"%08x\n" % self.personality(), None),
            "limits": (0o444, lambda: text.limits(process.limits), None),
            "comm": (0o644, lambda: text.encode(task.name) + b"\n", self.rename),
            "syscall": (0o400, lambda: b"running\n", None),
            "cmdline": (0o444, self.command_line, None),
            "stat": (0o444, lambda: text.stat(self.facts()), None),
            "statm": (0o444, lambda: text.statm(memory_facts(process.space)), None),
            "maps": (0o444, lambda: text.encode(process.space.render_maps()), None),
            "mounts": (0o444, lambda: machine_text.mounts(mount_lines(kernel.vfs, process.fs.root)), None),
            "mountinfo": (0o444, lambda: machine_text.mountinfo(mount_lines(kernel.vfs, process.fs.root)), None),
            "smaps": (0o444, lambda: text.smaps(area_facts(process.space)), None),
            "wchan": (0o444, lambda: b"0", None),
            "schedstat": (0o444, lambda: b"0 0 0\n", None),
            "cpuset": (0o444, lambda: b"/\n", None),
            "cgroup": (0o444, self.control_group, None),
            "oom_score": (0o444, self.oom_score, None),
            "oom_adj": (0o644, lambda: b"%d\n" % (self.oom_score_adj() * 17 // 1000), None),
            "oom_score_adj": (0o644, lambda: b"%d\n" % self.oom_score_adj(), self.set_oom_score_adj),
            "loginuid": (0o644, lambda: b"4294967295", self.refuse),
            "sessionid": (0o444, lambda: b"4294967295", None),
            "coredump_filter": (0o644, lambda: b"%08x\n" % process_state(process).coredump_filter, self.filter_core),
            "io": (0o400, self.transfers, None),
            "timerslack_ns": (0o666, lambda: b"%d\n" % self.timer_slack(), self.ignore),
            "uid_map": (0o644, *self.id_map("uids")),
            "gid_map": (0o644, *self.id_map("gids")),
            "setgroups": (0o644, self.setgroups, self.set_setgroups),
            "timens_offsets": (0o644, self.clock_offsets, self.set_clock_offsets),
        }

    def links(self) -> dict[str, tuple[Callable[[], str], Callable[[], Location | None]]]:
        """Name -> (text, place)."""
        process, vfs = self.process, self.kernel.vfs

        def alive(place: Callable[[], Location | None]) -> Location:
            found = place() if process.status is None else None
            if found is None:  # a zombie is nowhere
                raise LinuxError(ENOENT)
            return found

        return {
            "cwd": (lambda: vfs.path_of(alive(lambda: process.fs.cwd)), lambda: process.fs.cwd),
            "root": (lambda: vfs.path_of(alive(lambda: process.fs.root)), lambda: process.fs.root),
            "exe": (lambda: alive(lambda: process.executable).path, lambda: process.executable),
        }

    # Descriptors

    def descriptors(self) -> Inode:
        """fd/"""
        files = self.process.files

        def names() -> list[Entry]:
            return [(str(fd), self.number + 0x1000 + fd, S_IFLNK >> 12) for fd, _ in files.items()]

        def find(name: str) -> Inode | None:
            file = self.open_file(name)
            return None if file is None else self.descriptor_link(int(name), file)

        made = GeneratedDirectory(names, find, device=PROC_DEVICE, inode=self.number + 2, mode=0o500, now_ns=self.now)
        made.size = len(files.items())
        made.uid, made.gid = self.process.credentials.euid, self.process.credentials.egid
        return made

    def open_file(self, name: str) -> OpenFile | None:
        """The open file of a descriptor's name, None if it is none or not open."""
        if not (name.isdecimal() and name.isascii()) or (len(name) > 1 and name[0] == "0"):
            return None
        try:
            return self.process.files.get(int(name))
        except LinuxError:
            return None

    def descriptor_link(self, fd: int, file: OpenFile) -> Inode:
        """fd/N: its permissions tell how the file was opened."""
        mode = (0o500 if file.readable else 0) | (0o300 if file.writable else 0)
        place = self.kernel.vfs.place_of
        link = MagicLink(
            lambda: file.path, lambda: place(file), device=PROC_DEVICE, inode=self.number + 0x1000 + fd, mode=mode
        )
        link.size = 64
        link.atime_ns = link.mtime_ns = link.ctime_ns = self.now
        link.uid, link.gid = self.process.credentials.euid, self.process.credentials.egid
        return link

    def descriptor_texts(self) -> Inode:
        """fdinfo/"""
        files = self.process.files

        def names() -> list[Entry]:
            return [(str(fd), self.number + 0x8000 + fd, S_IFREG >> 12) for fd, _ in files.items()]

        def find(name: str) -> Inode | None:
            file = self.open_file(name)
            if file is None:
                return None
            fd = int(name)
            return ProcFile(lambda: self.descriptor_text(fd), inode=self.number + 0x8000 + fd, now_ns=self.now)

        return GeneratedDirectory(names, find, device=PROC_DEVICE, inode=self.number + 3, now_ns=self.now)

    def descriptor_text(self, fd: int) -> bytes:
        """fdinfo/N."""
        from loadstone.linux.anon_inodes import AnonymousFile

        files = self.process.files
        file = files.get(fd)
        flags = file.flags | (O_CLOEXEC if files.is_cloexec(fd) else 0)
        mount = mount_number(self.kernel.vfs, file.location.mount) if file.location is not None else 1
        details = file.details() if isinstance(file, AnonymousFile) else b""
        return text.fdinfo(file.offset, flags, mount, file.inode.inode) + details

    # Namespaces

    def namespaces(self) -> Inode:
        """ns/"""
        from loadstone.linux.namespaces.files import directory

        return directory(self.task, device=PROC_DEVICE, inode=self.number + 0x7000, now_ns=self.now)

    def network(self) -> Inode:
        """net/"""
        from loadstone.linux.namespaces import namespaces_of
        from loadstone.linux.proc.network import directory

        return directory(namespaces_of(self.task).net.sockets, self.number + 0x7800, self.now)

    def id_map(self, which: str) -> tuple[Produce, Callable[[bytes], None]]:
        """uid_map or gid_map: what makes the text, and what takes one."""

        def shown() -> bytes:
            from loadstone.linux.namespaces import id_maps

            return id_maps.shown(self.process, which, self.asking)

        def write(data: bytes) -> None:
            from loadstone.linux.namespaces import id_maps

            id_maps.write(self.process, which, self.asking, data)

        return shown, write

    def setgroups(self) -> bytes:
        """setgroups: whether the namespace allows setgroups(2)."""
        from loadstone.linux.namespaces import id_maps

        return id_maps.setgroups_shown(self.process)

    def set_setgroups(self, data: bytes) -> None:
        """setgroups: allow or deny."""
        from loadstone.linux.namespaces import id_maps

        id_maps.write_setgroups(self.process, self.asking, data)

    def clock_offsets(self) -> bytes:
        """timens_offsets: of the time namespace of its children."""
        from loadstone.linux.namespaces import namespaces_of

        return namespaces_of(self.task).time_for_children.shown()

    def set_clock_offsets(self, data: bytes) -> None:
        """timens_offsets: while nobody is in the namespace."""
        from loadstone.linux.namespaces import namespaces_of

        time = namespaces_of(self.task).time_for_children
        time.write(self.asking, self.kernel.clock.monotonic_ns(), data)
        if time.monotonic or time.boottime:
            linux_of(self.task).vdso.vvar.leave_host(self.kernel.memory)

    @property
    def asking(self) -> Process:
        """The process that reads or writes a file; the one it is about where none is running."""
        current = self.kernel.scheduler.current
        return current.process if current is not None else self.process

    # Threads

    def tasks(self) -> Inode:
        """task/"""
        process = self.process

        def names() -> list[Entry]:
            return [
                (str(self.seen(task.tid)), process_number(task.tid, process.started_ns) + 0x4000, S_IFDIR >> 12)
                for task in process.tasks
            ]

        def find(name: str) -> Inode | None:
            for task in process.tasks:
                if str(self.seen(task.tid)) == name:
                    number = process_number(task.tid, process.started_ns) + 0x4000
                    return ProcessFiles(self.kernel, process, task, number, self.pids).of_thread()
            return None

        return GeneratedDirectory(names, find, device=PROC_DEVICE, inode=self.number + 1, now_ns=self.now)

    # Texts

    def facts(self) -> ProcessFacts:
        """What stat and status tell, in the numbers of who reads them."""
        facts = process_facts(self.kernel, self.process, self.task)
        users = self.asking.credentials.users
        if users is None and self.pids is None and pids_of(self.process) is None:
            return facts
        from loadstone.linux.namespaces.proc_view import facts_seen

        return facts_seen(facts, self.process, self.pids, users)

    def memory(self, start: int, end: int) -> bytes:
        """The process's own bytes, as far as they are there."""
        from loadstone.memory import user

        if end <= start:
            return b""
        try:
            return b"".join(user.pieces(self.process.space, start, end - start, False))
        except LinuxError:
            return b""

    def command_line(self) -> bytes:
        """The argument strings; if the program wrote over the last NUL, on into the environment (get_mm_cmdline)."""
        stack = self.process.image.stack
        start, end, more = stack.argument_start, stack.argument_end, stack.environment_end
        data = self.memory(start, end)
        if not data or data[-1] == 0:
            return data
        first = data.find(b"\0")
        if first >= 0:
            return data[: first + 1]
        data += self.memory(end, min(more, start + 4096))
        first = data.find(b"\0")
        return data if first < 0 else data[: first + 1]

    def environment(self) -> bytes:
        """The environment's strings, as they are in memory now."""
        stack = self.process.image.stack
        return self.memory(stack.environment_start, stack.environment_end)

    def auxiliary_vector(self) -> bytes:
        """What exec put on the stack (mm->saved_auxv), with the AT_NULL that ends it."""
        pairs = [(key, value & (1 << 64) - 1) for key, value in self.process.image.auxv if key]
        return b"".join(pack("<QQ", key, value) for key, value in [*pairs, (0, 0)])

    def personality(self) -> int:
        """personality(2)."""
        return process_state(self.process).personality

    def timer_slack(self) -> int:
        """PR_GET_TIMERSLACK, in ns."""
        return process_state(self.process).settings.get(PR_GET_TIMERSLACK, DEFAULT_SLACK)

    def rename(self, data: bytes) -> None:
        """comm: at most 15 bytes."""
        name = data.rstrip(b"\n").split(b"\0")[0][:15].decode("utf-8", "surrogateescape")
        self.task.name = name
        if self.task is self.process.tasks[0]:
            self.process.name = name

    def oom_score(self) -> bytes:
        """oom_score; a zombie has nothing to give."""
        if self.process.status is not None:
            return b"0\n"
        return b"%d\n" % oom_score(self.process.space, self.oom_score_adj(), self.kernel.options.memory_size >> 12)

    def oom_score_adj(self) -> int:
        """From -1000 to 1000."""
        return process_state(self.process).oom_score_adj

    def set_oom_score_adj(self, data: bytes) -> None:
        """Kept, and of no effect; lowering it is root's."""
        try:
            value = int(data)
        except ValueError:
            raise LinuxError(EINVAL) from None
        if not -1000 <= value <= 1000:
            raise LinuxError(EINVAL)
        if value < self.oom_score_adj() and self.process.credentials.euid:
            raise LinuxError(EACCES)
        process_state(self.process).oom_score_adj = value

    def filter_core(self, data: bytes) -> None:
        """Which mappings go into a core file: a number, decimal or 0x… (kstrtouint with base 0)."""
        text = data.strip()
        try:
            value = int(text, 8 if text[:1] == b"0" and text[1:].isdigit() else 0)
        except ValueError:
            raise LinuxError(EINVAL) from None
        process_state(self.process).coredump_filter = value & 0x1FF

    def refuse(self, data: bytes) -> None:
        """Not to be changed."""
        raise LinuxError(EPERM)

    def ignore(self, data: bytes) -> None:
        """Accepted, and of no effect."""

    def transfers(self) -> bytes:
        """io: what was read and written is not counted."""
        names = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes")
        return "".join(f"{name}: 0\n" for name in names).encode()
