"""The Linux personality: what becomes of a trap, and how a process's image is replaced."""

from __future__ import annotations

import os
from errno import ENOEXEC, ENOSYS
from typing import TYPE_CHECKING, Any

from loadstone.errors import LinuxError
from loadstone.events import Exec, Program, publish
from loadstone.kernel.process import ExitStatus
from loadstone.linux import ending, exceptions, rseq, vsyscall
from loadstone.linux.capabilities import execute_with
from loadstone.linux.console import Console
from loadstone.linux.exec.execve import known_plans
from loadstone.linux.exec.layout import Draws
from loadstone.linux.exec.prepared_images import PreparedImages
from loadstone.linux.exec.world import ProcessWorld, open_passed
from loadstone.linux.mounts import mount_kernel_files
from loadstone.linux.of_task import tracee_of
from loadstone.linux.profile import RLIM_INFINITY, RLIMIT_CPU
from loadstone.linux.refusals import count
from loadstone.linux.signal import delivery, sending, signals
from loadstone.linux.state import process_state, task_state
from loadstone.linux.syscalls.dispatch import Pending, SystemCalls
from loadstone.linux.vdso import make_vdso
from loadstone.machine.core import DEBUG, GENERAL_PROTECTION, PAGE_FAULT
from loadstone.memory.fault import BadAccess, Missing
from loadstone.memory.vma import EXEC, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadstone.binfmt.misc import MiscFormats
    from loadstone.events import Subscriber
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Credentials, Process, Task
    from loadstone.linux.answered_calls import AnsweredCalls
    from loadstone.linux.answered_reads import AnsweredReads
    from loadstone.linux.answered_signals import AnsweredSignals
    from loadstone.linux.cgroups import Hierarchy
    from loadstone.linux.coredump import CoreFiles, CoreSettings
    from loadstone.linux.exec.execve import Stage
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.linux.exec.program import Opened
    from loadstone.linux.exec.program import Program as ProgramFile
    from loadstone.linux.namespaces import MachineNamespaces
    from loadstone.machine.core import Trap
    from loadstone.machine.kvm_core import KvmCore
    from loadstone.machine.unicorn_core import UnicornCore

_UNLIMITED = (RLIM_INFINITY, RLIM_INFINITY)
_RDTSC = (b"\x0f\x31", b"\x0f\x01\xf9")
_TSC_PER_NS = 2  # the machine's time-stamp counter runs at 2 GHz, where it is not the host's
_INT80 = 0x80
_MOST_KILLS = 8  # that are told of


class _Told(list["Stage"]):
    """The stages of an exec, each published when it is done, among the events of what it mapped and touched."""

    def __init__(self, subscribers: tuple[Subscriber, ...], task: Task, path: str) -> None:
        self._subscribers = subscribers
        self._who = (task.process.pid, task.tid, path)

    def append(self, stage: Stage) -> None:
        """Add and publish a stage."""
        super().append(stage)
        publish(self._subscribers, Exec(*self._who, stage.function, stage.step, stage.text))


class Linux:
    """Implements `kernel.kernel.Personality` for x86-64 Linux programs.

    Attributes:
        killed_for_memory: a sentence for each process that the out-of-memory kill ended, the first eight.
        calls: the system calls, with what they counted.
        console: the terminal's foreground group; `console.restore()` gives the host's terminals their modes back.
        vdso: what stands behind [vdso] and [vvar].
        plans, images: what is known of programs that were executed.
        formats: what was registered with binfmt_misc; None until somebody looks there.
        most_descriptors: fs.nr_open, which no process's limit of descriptors can exceed.
        pipe_max_size: fs.pipe-max-size, in bytes.
        namespaces: the machine's first namespaces; None until somebody asks for one.
        core_files: where on the host processes that die by certain signals leave their core; None: nowhere there.
        core_settings: kernel.core_pattern; None until somebody asks.
        answered_calls, answered_reads, answered_signals: calls that the core answers; None where it cannot.
        ignored_set_id: the paths of executed files whose set-user-ID or set-group-ID bits were ignored, in order.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._draws = Draws(kernel.options.aslr) if kernel.options.aslr is not None else None
        self.vdso = make_vdso(kernel.profile, kernel.clock)
        self.plans = known_plans(kernel.profile)
        self.images = PreparedImages()
        self.formats: MiscFormats | None = None
        self.namespaces: MachineNamespaces | None = None
        self.most_descriptors = self.pipe_max_size = 1 << 20
        self.core_files: CoreFiles | None = None
        self.core_settings: CoreSettings | None = None
        self.answered_calls: AnsweredCalls | None = None
        self.answered_reads: AnsweredReads | None = None
        self.answered_signals: AnsweredSignals | None = None
        self.ignored_set_id: dict[str, None] = {}
        self.killed_for_memory: list[str] = []
        self.calls = SystemCalls(kernel.events)
        self.console = Console()
        self.restore_terminal = self.console.restore
        mount_kernel_files(kernel)
        self.system_call = self.calls.dispatch
        self.next_deadline = self.calls.timers.next_deadline
        self.expire_timers = self.calls.timers.expire
        self.armed = self.calls.timers.armed
        self.before_user = delivery.deliver
        self.signal_name = signals.name
        self.cgroups: Hierarchy | None = None  # made when cgroup2 is first mounted
        self.task_ended = ending.task_ended
        self.process_ended = ending.process_ended

    def answer_calls(self, core: KvmCore) -> None:
        """Have `core` answer reads, and calls whose answer is known, by itself where nobody looks."""
        from loadstone.linux.answered_calls import AnsweredCalls
        from loadstone.linux.answered_reads import AnsweredReads

        self.answered_reads = AnsweredReads(self._kernel, core, self.calls)
        core.calls = self.answered_calls = AnsweredCalls(self._kernel, self.calls)

    def answer_signals(self, core: KvmCore | UnicornCore) -> None:
        """Have `core` change signal masks and actions by itself where nobody looks."""
        from loadstone.linux.answered_signals import AnsweredSignals

        core.signals = self.answered_signals = AnsweredSignals(self._kernel, self.calls)

    def resume(self, task: Task, pending: Any, reason: str) -> Any:
        """Go on with a call whose wait is over, or behind a wait for a page or for a tracer."""
        if pending.__class__ is Pending:
            return self.calls.resume(task, pending, reason)
        return pending.go_on()

    def interrupt(self, task: Task, pending: Any) -> Any:
        """Tell who waits that a signal came."""
        if pending.__class__ is Pending:
            return self.calls.interrupt(task, pending)
        return pending.go_on()

    def exception(self, task: Task, trap: Trap) -> Any:
        """A page fault that memory could not resolve, or another exception of the CPU, becomes a signal.

        One that the program itself answers (userfaultfd) becomes a wait, which is returned.
        """
        if trap.vector == PAGE_FAULT:
            if isinstance(trap.failure, Missing):
                from loadstone.linux.userfault import WaitingToucher

                return WaitingToucher(task, trap.failure)
            assert isinstance(trap.failure, BadAccess)
            if trap.failure.access == EXEC and vsyscall.stands_for_calls(task, trap.failure.address):
                return vsyscall.emulate(task, self.calls, trap.failure.address)
            exceptions.force_fault(task, trap.failure, _error_code(trap.failure))
        elif trap.vector == _INT80:
            self._refuse_int80(task)
        elif not self._is_harmless(task, trap.vector):
            exceptions.force_exception(task, trap.vector, trap.error)
        return None

    def _is_harmless(self, task: Task, vector: int) -> bool:
        """Whether an exception is nothing that the program hears of: the time was read, or a watchpoint not hit."""
        if vector == GENERAL_PROTECTION:
            return self._read_time_stamp(task)
        return vector == DEBUG and self._stepped_over(task)

    def _stepped_over(self, task: Task) -> bool:
        """Whether a tracer's watchpoints made the thread go one instruction further, and none of them is hit."""
        tracee = tracee_of(task)
        return tracee is not None and tracee.stepped()

    def new_slice(self, task: Task) -> None:
        """The data page that the vDSO reads is brought up to date."""
        self.vdso.refresh(self._kernel.memory)

    def out_of_frames(self, task: Task, why: str) -> None:
        """The kernel's out-of-memory kill: the process with the most resident pages goes, whoever wanted the frame."""
        victim = max(self._kernel.processes.values(), key=lambda p: p.space.resident_pages if p.status is None else -1)
        share = f"{victim.name} (pid {victim.pid}), which has {victim.space.resident_pages} of them, is killed"
        note = f"out of memory: {why}; {share}"
        if len(self.killed_for_memory) < _MOST_KILLS:
            self.killed_for_memory.append(note)
        self._kernel.exit_process(victim, ExitStatus(signal=signals.SIGKILL, note=note))

    def ran(self, task: Task) -> None:
        """Hold a control group to its limits; RLIMIT_CPU: SIGXCPU at the soft one and after, SIGKILL at the hard."""
        process = task.process
        if self.cgroups is not None and process.status is None:
            self.cgroups.hold_limits(task)
        soft, hard = process.limits.get(RLIMIT_CPU, _UNLIMITED)
        if soft == RLIM_INFINITY or process.status is not None:
            return
        seconds = process.total_usage().cpu_ns // 1_000_000_000
        state = process_state(process)
        if seconds >= hard:
            sending.send(process, signals.from_kernel(signals.SIGKILL))
        elif seconds >= soft and seconds > state.cpu_seconds_told:
            state.cpu_seconds_told = seconds
            sending.send(process, signals.from_kernel(signals.SIGXCPU))

    def migrated(self, task: Task) -> None:
        """The CPU number that the C library reads in the thread's own memory is brought up to date."""
        if task_state(task).rseq is not None:
            rseq.update(task)

    def preempted(self, task: Task) -> None:
        """A restartable sequence does not go on after somebody else ran."""
        if task_state(task).rseq is not None:
            try:
                rseq.leave_critical_section(task)
            except LinuxError:
                sending.force(task, signals.from_kernel(signals.SIGSEGV))

    def console_signal(self, number: int) -> None:
        """Ctrl-C and its like, to the terminal's foreground group; to everybody where there is none.

        SIGTERM is not typed but sent to a process: to the program that the machine was started for, as long as that
        lives; else to everybody. So is SIGHUP where no terminal could have been hung up.
        """
        foreground = self.console.foreground
        living = [process for process in self._kernel.processes.values() if process.status is None]
        if number == signals.SIGTERM or (number == signals.SIGHUP and not foreground):
            for process in [one for one in living if one.is_first] or living:
                sending.send(process, signals.from_process(number, 0, 0))
            return
        for process in living:
            if foreground in (0, process.group):
                sending.send(process, signals.from_kernel(number))

    def suspend_terminal(self) -> Callable[[], None]:
        """Give the host's terminals their modes back until what is returned is called."""
        modes = self.console.suspend()
        return lambda: self.console.go_on(modes)

    def execute(
        self, task: Task, path: str, argv: Sequence[bytes], envp: Sequence[bytes], opened: Opened | None = None,
        program: ProgramFile | None = None,
    ) -> None:  # fmt: skip
        """execve: build the new image, then make the task that program. Raises LinuxError with the old image intact.

        An error past the point of no return has `fatal_signal`; the caller ends the process by it. `opened` is what
        execveat(2) found, and `program` what `check` said to it. The image has its stages where somebody listens, and
        that of a process's first program.
        """
        listeners = self._kernel.events.exec
        stages: list[Stage] = _Told(listeners, task, path) if listeners else []
        image = self.world(task.process).execve(
            path, argv, envp, draws=self._draws, stages=stages, opened=opened, program=program,
            tells=bool(listeners) or task.process.image is None,
        )  # fmt: skip
        if image.isa != "x86_64":
            image.space.release()
            why = f"{path} is a program for {image.isa}: it can be explained, but there is no core that runs it"
            raise LinuxError(ENOEXEC, why)
        former = task.tid
        self._commit(task, image)
        if self.calls.tracing is not None:
            self.calls.tracing.executed(task, former)
        if self._kernel.events.program:
            self._tell_program(task, path, argv)

    def _tell_program(self, task: Task, path: str, argv: Sequence[bytes]) -> None:
        process = task.process
        record = Program(
            process.pid, task.tid, self._kernel.scheduler.time_ns(), path, process.image.program.path, process.name,
            tuple(os.fsdecode(argument) for argument in argv),
        )  # fmt: skip
        publish(self._kernel.events.program, record)

    def world(self, process: Process) -> ProcessWorld:
        """What execve sees when `process` calls it."""
        kernel = self._kernel
        return ProcessWorld(
            kernel, process, self.vdso, kernel.profile, self.plans, self.formats, images=self.images
        )  # fmt: skip

    def _commit(self, task: Task, image: ExecImage) -> None:
        """begin_new_exec and start_thread: the process is the new program from here on."""
        process = task.process
        self._end_siblings(task)
        process.apart = None  # nobody is left to be apart from
        ending.leave_memory(task)
        task.clear_child_tid = 0
        process.exit_signal = signals.SIGCHLD
        old = getattr(process, "space", None)
        if old is not None and old.users == 1:  # not a memory lent by vfork, whose faults are its owner's
            process.usage.add_memory(old)
        process.space = image.space
        process.space.owner_ids = (process.pid, task.tid, task.cpu)
        process.image = image
        process.name = task.name = image.name
        process.executable = image.program.location
        _settle_credentials(process.credentials, task_state(task).no_new_privileges)
        _settle_files(process, image)
        if image.ignored_set_id is not None:
            self.ignored_set_id.setdefault(image.ignored_set_id.path)
        _reset(task, image)
        process.has_executed = True
        if old is not None:
            old.release()

    def _end_siblings(self, task: Task) -> None:
        """exec ends the other threads; the one that called it becomes the first (kernel: de_thread)."""
        process = task.process
        if len(process.tasks) == 1:
            return
        others = [other for other in process.tasks if other is not task]
        process.tasks = [task, *others]
        for other in others:
            self._kernel.end_task(other)
        del self._kernel.tasks[task.tid]
        task.tid = process.pid
        self._kernel.tasks[task.tid] = task

    def _read_time_stamp(self, task: Task) -> bool:
        """RDTSC and RDTSCP outside ring 0 arrive as exceptions, so that time comes from the machine's clock."""
        from loadstone.memory.user import copy_in

        context = task.context
        try:
            code = copy_in(task.process.space, context.pc, 3)
        except LinuxError:
            return False
        if not code.startswith(_RDTSC):
            return False
        ticks = self._kernel.clock.monotonic_ns() * _TSC_PER_NS
        context.write("rax", ticks & 0xFFFF_FFFF)
        context.write("rdx", ticks >> 32 & 0xFFFF_FFFF)
        if code.startswith(_RDTSC[1]):
            context.write("rcx", task.cpu)
            context.pc += 3
        else:
            context.pc += 2
        return True

    def _refuse_int80(self, task: Task) -> None:
        """The 32-bit call gate: not implemented, so -ENOSYS, and counted."""
        name = f"int 0x80 (i386 call {task.context.read('rax') & 0xFFFF_FFFF})"
        count(self.calls.unimplemented, name)
        task.context.write("rax", -ENOSYS & (1 << 64) - 1)


def _settle_files(process: Process, image: ExecImage) -> None:
    """The process has descriptors of its own, without those that exec closes and with the one that it opens."""
    if process.files.shared:  # with another process (kernel: unshare_files)
        shared, process.files = process.files, process.files.clone()
        shared.drop()
    process.files.close_on_exec()
    if image.passed is not None:
        process.files.install(open_passed(image.passed), minimum=image.descriptor)


def _reset(task: Task, image: ExecImage) -> None:
    """What was set for the former program is as for a new one; the registers are at the first instruction."""
    process, context = task.process, task.context
    process.signals.exec()
    task.signals.exec()
    task.robust_list = 0
    process_state(process).exec(image.plan.read_implies_exec, process.credentials)
    task_state(task).exec()
    context.reset()
    context.write_registers({register: value for register, value in image.registers.items() if value})


def _error_code(bad: BadAccess) -> int:
    """The page fault's error code, as the CPU would have pushed it (Intel SDM vol. 3, 4.7), but for the present bit."""
    code = exceptions.PF_USER
    if bad.access == WRITE:
        code |= exceptions.PF_WRITE
    elif bad.access == EXEC:
        code |= exceptions.PF_FETCH
    return code


def _settle_credentials(who: Credentials, no_new: bool) -> None:
    """Set-user-ID bits are ignored, as under `no_new_privs`; the saved numbers follow the effective ones.

    `no_new`: PR_SET_NO_NEW_PRIVS was used.
    """
    who.suid = who.fsuid = who.euid
    who.sgid = who.fsgid = who.egid
    if who.capabilities is not None:
        execute_with(who, no_new=no_new)
