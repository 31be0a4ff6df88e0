"""One file, or many, given to Loadstone and to the kernel: the images compared, and how it came out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING

from loadstone.binfmt.names import ET_DYN
from loadstone.binfmt.plan import ElfPlan
from loadstone.errors import HostError, LinuxError
from loadstone.linux.exec import origins
from loadstone.linux.profile import RLIM_INFINITY, live_profile
from loadstone.verify.image import Difference, ImageFacts, MustDiffer, compare, facts_of_image, facts_of_native
from loadstone.verify.native import native_process
from loadstone.verify.native_exec import NativeFailure
from loadstone.verify.probe import measure_i386, measure_live
from loadstone.verify.replay import KernelDraws, OutOfRange, solve
from loadstone.vfs.flags import S_ISGID, S_ISUID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.api import Machine
    from loadstone.linux.exec.layout import Draws
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.linux.profile import KernelProfile

IDENTICAL, REFUSED_ALIKE, DIFFERS, LEFT_OUT = "identical", "refused alike", "differs", "left out"
_GROUP_EXECUTE = 0o010

RANDOMISED = MustDiffer(
    "random addresses",
    "a set-user-ID or set-group-ID file drops ADDR_NO_RANDOMIZE. The kernel's draws were solved for from its image, "
    "each lies in its range, and with the same draws the image is compared like any other",
)


@dataclass(frozen=True, slots=True)
class Request:
    """What to execute, with what, and where (the caller's directory if there is no `cwd`)."""

    path: str
    argv: tuple[bytes, ...]
    envp: tuple[bytes, ...] = ()
    cwd: str | None = None
    label: str = ""  # which variant of the arguments this is


@dataclass(frozen=True, slots=True)
class Result:
    """How one request came out. It can be sent between processes.

    Attributes:
        outcome: IDENTICAL, REFUSED_ALIKE (the same errno, or the same signal), DIFFERS or LEFT_OUT.
        kind: what sort of program it is, for counting: `ELF64 PIE, dynamic`.
        why: the verdict of both, or why it was left out.
        differences, must_differ, compared, mappings: see `image.Comparison`.
        draws: the kernel's, for an image that it randomises all the same.
        seconds: what it took, ours and the kernel's.
        images: both, if they were to be kept.
    """

    request: Request
    outcome: str
    kind: str
    why: str = ""
    differences: tuple[Difference, ...] = ()
    must_differ: tuple[MustDiffer, ...] = ()
    compared: int = 0
    mappings: int = 0
    draws: KernelDraws | None = None
    seconds: tuple[float, float] = (0.0, 0.0)
    images: tuple[ImageFacts, ImageFacts] | None = field(default=None, repr=False)

    @property
    def passed(self) -> bool:
        """Whether Loadstone and the kernel agree."""
        return self.outcome in (IDENTICAL, REFUSED_ALIKE)


class Verifier:
    """A machine for any number of comparisons; close it, or use it in a `with`.

    Args:
        profile: the kernel to model; default: the one we are running on.
        stack_limit: soft RLIMIT_STACK in bytes for both sides; default: the caller's.
        keep_images: whether results carry both images.
    """

    def __init__(
        self, profile: KernelProfile | None = None, *, stack_limit: int | None = None, keep_images: bool = False
    ) -> None:
        from loadstone.api import Machine

        profile = profile or measure_live(live_profile())
        self._machine: Machine = Machine(profile=profile, stack_limit=stack_limit, fill_ahead=0, keep_faults=False)
        self._stack_limit = stack_limit
        self._keep_images = keep_images
        self._probed = False

    def close(self) -> None:
        """Give the machine back."""
        self._machine.close()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def profile(self) -> KernelProfile:
        """The kernel that Loadstone models."""
        return self._machine.profile

    def verify(self, request: Request) -> Result:
        """Let both execute the file. Raises HostError where the host cannot be asked."""
        if reason := _left_out(request.path):
            return Result(request, LEFT_OUT, "left out", reason)
        start = perf_counter()
        ours = self._prepare(request)
        between = perf_counter()
        if isinstance(ours, LinuxError):
            kernel = self._ask_kernel(request, frozenset())
            return replace(_refused(request, ours, kernel), seconds=(between - start, perf_counter() - between))
        try:
            facts = facts_of_image(ours, host_vdso=self.profile.live)
            between = perf_counter()
            kernel = self._ask_kernel(request, frozenset(facts.pages))
            times = (between - start, perf_counter() - between)
            return replace(self._judge(request, ours, facts, kernel), seconds=times)
        finally:
            ours.space.release()

    def _ask_kernel(self, request: Request, pages: frozenset[int]) -> ImageFacts | NativeFailure:
        """The kernel's image, or how it refused."""
        limit = -1 if self._stack_limit == RLIM_INFINITY else self._stack_limit
        try:
            with native_process(
                request.path, request.argv, request.envp, cwd=request.cwd, stack_limit=limit
            ) as process:
                return facts_of_native(process, pages)
        except NativeFailure as failure:
            return failure

    def _prepare(self, request: Request) -> ExecImage | LinuxError:
        """Our image, or why there is none."""
        try:
            image = self._execute(request)
        except LinuxError as error:
            return error
        if image.plan.bits == 32 and self.profile.live and not self._probed:
            self._probed = True
            image.space.release()
            self._machine.profile = measure_i386(self.profile)
            return self._prepare(request)
        return image

    def _execute(self, request: Request, draws: Draws | None = None) -> ExecImage:
        return self._machine.prepare(request.path, request.argv, request.envp, cwd=request.cwd, draws=draws)

    def _judge(
        self, request: Request, ours: ExecImage, facts: ImageFacts, kernel: ImageFacts | NativeFailure
    ) -> Result:
        if isinstance(kernel, NativeFailure):
            return _verdicts(request, kind_of(ours), "ok", kernel.name)
        if not _randomised(ours):
            return self._compare(request, ours, facts, kernel)
        if self.profile.vdso_above_stack:
            return Result(request, LEFT_OUT, "left out", "its random vDSO address cannot be solved for")
        return self._compare_randomised(request, ours, kernel)

    def _compare(
        self, request: Request, image: ExecImage, ours: ImageFacts, kernel: ImageFacts, draws: KernelDraws | None = None
    ) -> Result:
        interpreter = image.interpreter.path if image.interpreter is not None else ""
        found = compare(ours, kernel, image.stack.layout(), image.program.path, interpreter)
        return Result(
            request,
            DIFFERS if found.differences else IDENTICAL,
            kind_of(image),
            differences=found.differences,
            must_differ=(*found.must_differ, *((RANDOMISED,) if draws else ())),
            compared=found.compared,
            mappings=found.mappings,
            draws=draws,
            images=(ours, kernel) if self._keep_images else None,
        )

    def _compare_randomised(self, request: Request, plain: ExecImage, kernel: ImageFacts) -> Result:
        """Compare with an image that has the kernel's own draws.

        The pages that the kernel wrote were asked for at other addresses: they are not compared here.
        """
        try:
            draws = solve(lambda source: self._execute(request, source), kernel, self.profile)
            image = self._execute(request, draws.replay())
        except (OutOfRange, LinuxError) as error:
            difference = Difference("random addresses", str(error), "", origins.of_word("padding"))
            return Result(request, DIFFERS, kind_of(plain), str(error), (difference,))
        try:
            facts = facts_of_image(image, host_vdso=self.profile.live)._replace(pages={})
            return self._compare(request, image, facts, kernel._replace(pages={}), draws)
        finally:
            image.space.release()


def kind_of(image: ExecImage) -> str:
    """`ELF64 PIE, dynamic`; for a script it is its interpreter's kind."""
    plan, script = image.plan, "script, " if image.scripts else ""
    if not isinstance(plan, ElfPlan):
        return f"{script}a.out"
    place = "PIE" if plan.header.type == ET_DYN else "fixed"
    linked = "dynamic" if image.interpreter is not None else "static"
    return f"{script}ELF{plan.bits} {place}, {linked}"


def _refused(request: Request, error: LinuxError, kernel: ImageFacts | NativeFailure) -> Result:
    ours = f"signal {error.fatal_signal}" if error.fatal_signal is not None else error.name
    theirs = kernel.name if isinstance(kernel, NativeFailure) else "ok"
    return _verdicts(request, "refused", ours, theirs, error.why)


def _verdicts(request: Request, kind: str, ours: str, kernel: str, why: str = "") -> Result:
    if ours == kernel:
        return Result(request, REFUSED_ALIKE, "refused by both", f"{ours}: {why}" if why else ours)
    difference = Difference("execve", ours, kernel, origins.of_verdict())
    return Result(request, DIFFERS, kind, f"Loadstone says {ours}, the kernel {kernel}", (difference,))


def _randomised(image: ExecImage) -> bool:
    """Whether the kernel drops ADDR_NO_RANDOMIZE for the file (bprm_fill_uid: PER_CLEAR_ON_SETID)."""
    mode = image.program.inode.mode
    return bool(mode & S_ISUID or mode & (S_ISGID | _GROUP_EXECUTE) == S_ISGID | _GROUP_EXECUTE)


def _left_out(path: str) -> str:
    """Why the kernel's answer about the file could not be compared: for users who are not root."""
    if os.geteuid() == 0:
        return ""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    if mode & (S_ISUID | S_ISGID):
        return "the kernel ignores set-user-ID when another user traces; run as root to compare it"
    if not os.access(path, os.R_OK):
        return "it may be executed but not read"
    try:
        os.getxattr(path, "security.capability")
    except OSError:
        return ""
    return "the kernel ignores file capabilities when another user traces; run as root to compare it"


def require_host() -> None:
    """Raise HostError where there is no kernel to ask."""
    import platform
    import sys

    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise HostError("verify asks the kernel underneath: it needs a Linux x86-64 host")


def strings(words: Sequence[str]) -> tuple[bytes, ...]:
    """Command-line words as execve takes them."""
    return tuple(os.fsencode(word) for word in words)
