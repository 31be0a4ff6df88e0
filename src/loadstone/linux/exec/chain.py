"""From the file that is executed to the one that is loaded: handlers are asked, interpreters put in front.

Sources: fs/exec.c (exec_binprm, search_binary_handler), fs/binfmt_misc.c, fs/binfmt_script.c.
"""

from __future__ import annotations

import os
from errno import ELOOP, ENOENT, ENOEXEC
from typing import TYPE_CHECKING

from loadstone.binfmt.known import FirstPage, Taken
from loadstone.binfmt.plan import ScriptPlan
from loadstone.binfmt.registry import handlers_of
from loadstone.errors import LinuxError
from loadstone.linux.exec.program import Program

if TYPE_CHECKING:
    from loadstone.binfmt.misc import MiscFormat
    from loadstone.binfmt.plan import AoutPlan, ElfPlan, Plan
    from loadstone.linux.exec.execve import Binprm


def exec_binprm(bprm: Binprm) -> ElfPlan | AoutPlan:
    """exec_binprm(): search a handler; as long as it puts an interpreter in front, search one for that."""
    for _ in range(bprm.world.profile.rewrites + 1):
        page, head = _prepare(bprm)
        file = bprm.program
        taken = _search_misc(bprm, head)
        if taken is not None:
            _load_misc(bprm, taken)
        else:
            plan = _search_binary_handler(bprm, page, head)
            if not isinstance(plan, ScriptPlan):
                return plan
            _load_script(bprm, plan)
        bprm.scripts.append(file)
        if bprm.passes_file:
            _pass(bprm, file)
    raise LinuxError(ELOOP, f"more than {bprm.world.profile.rewrites} interpreters in a row: {_chain(bprm)}")


def _prepare(bprm: Binprm) -> tuple[FirstPage, bytes]:
    """prepare_binprm(): the first page, and of it the first BINPRM_BUF_SIZE bytes, padded with zeros."""
    program, size = bprm.program, bprm.rules.buffer_size
    page = FirstPage(program)
    head = page.content[:size].ljust(size, b"\0")
    bprm.stage(
        "prepare_binprm",
        0,
        lambda: (
            f"creating a process, step 2 of 3: the first {size} bytes of {program.name} are read; they begin with "
            f"{head[:4]!r}"[: 300 + len(program.name)]
        ),
    )
    return page, head


def _search_misc(bprm: Binprm, head: bytes) -> MiscFormat | None:
    """The format of binfmt_misc that takes the file: they are asked before all handlers."""
    formats = bprm.setting.formats
    if formats is None:
        return None
    return formats.search(head, os.fsencode(bprm.interp))


def _search_binary_handler(bprm: Binprm, page: FirstPage, head: bytes) -> Plan:
    """search_binary_handler(): the first handler that knows the file's beginning takes it."""
    plans = bprm.world.plans
    taken = plans.program(page)
    if taken is None:
        taken = _ask_handlers(bprm, page, head)
        plans.keep_program(page, taken)
    if bprm.tells:
        refused = [*_misc_refused(bprm), *taken.refused]
        passed = f"{', '.join(refused)} said ENOEXEC; " if refused else ""
        bprm.stage("search_binary_handler", 0, f"{passed}{taken.handler} takes {bprm.program.name}")
    return taken.plan


def _ask_handlers(bprm: Binprm, page: FirstPage, head: bytes) -> Taken:
    program = bprm.program
    why = ""
    refused: list[str] = []
    for name, handler in handlers_of(bprm.rules):
        try:
            return Taken(name, handler(head, page, bprm.rules), tuple(refused))
        except LinuxError as error:
            if error.errno != ENOEXEC:
                bprm.stage("search_binary_handler", 0, f"{name} took the file and failed: {error}")
                raise
            why = why or error.why
            refused.append(name)
    if not why:
        from loadstone.binfmt.describe import describe

        why = describe(head, program.size)
    asked = ", ".join([*_misc_refused(bprm), *refused])
    bprm.stage("search_binary_handler", 0, f"{asked} all said ENOEXEC: {why}")
    raise LinuxError(ENOEXEC, f"no binary format handler takes {program.name}: {why}")


def _misc_refused(bprm: Binprm) -> list[str]:
    """The handler of binfmt_misc, which is asked before all others, if it has any formats."""
    formats = bprm.setting.formats
    return ["load_misc_binary"] if formats is not None and formats.formats else []


def _load_script(bprm: Binprm, plan: ScriptPlan) -> None:
    """load_script(): argv[0] is replaced by interpreter, argument and script; the interpreter is opened."""
    _demand_accessible(bprm)
    arguments, script = bprm.arguments, bprm.program
    arguments.remove_first()
    arguments.push(os.fsencode(bprm.interp))
    if plan.argument is not None:
        arguments.push(plan.argument)
    arguments.push(plan.interpreter)
    interpreter = os.fsdecode(plan.interpreter)
    option = f" with the argument {os.fsdecode(plan.argument)!r}" if plan.argument is not None else ""
    bprm.stage(
        "load_script",
        0,
        f"{bprm.interp} is a script for {interpreter}{option}: argv now begins with interpreter, argument and script",
    )
    _open_interpreter(bprm, interpreter, f"the interpreter {interpreter!r} named in the first line of {script.name}")


def _load_misc(bprm: Binprm, taken: MiscFormat) -> None:
    """load_misc_binary(): the interpreter goes before the file's path, and before argv[0] or in its place."""
    from loadstone.binfmt import misc

    name, interpreter = os.fsdecode(taken.name), os.fsdecode(taken.interpreter)
    bprm.stage("search_binary_handler", 0, f"load_misc_binary takes {bprm.program.name}: it is of the format {name}")
    _demand_accessible(bprm)
    arguments = bprm.arguments
    if taken.flags & misc.PRESERVE_ARGV0:
        bprm.preserves_argv0 = True
    else:
        arguments.remove_first()
    arguments.push(os.fsencode(bprm.interp))
    arguments.push(taken.interpreter)
    where = "before the old argv[0]" if taken.flags & misc.PRESERVE_ARGV0 else "in place of argv[0]"
    bprm.stage("load_misc_binary", 0, f"{interpreter} and {bprm.interp} go {where}")
    if taken.opened is not None:  # opened at registration: neither looked for nor checked again
        bprm.interp = interpreter
        bprm.program = taken.opened
    else:
        _open_interpreter(bprm, interpreter, f"the interpreter {interpreter!r} registered for the format {name}")
    bprm.passes_file |= bool(taken.flags & misc.OPEN_BINARY)
    bprm.passes_credentials |= bool(taken.flags & misc.CREDENTIALS)


def _demand_accessible(bprm: Binprm) -> None:
    """An interpreter must be able to open the file by the name it is given."""
    if bprm.opened is not None and bprm.opened.inaccessible:
        raise LinuxError(ENOENT, f"the interpreter could not open {bprm.file_name}: it is closed on exec")


def _open_interpreter(bprm: Binprm, path: str, what: str) -> None:
    """The interpreter takes the file's place; `what` it is called in an error."""
    bprm.interp = path
    try:
        bprm.program = bprm.open(path)
    except LinuxError as error:
        raise LinuxError(error.errno, f"{what}: {error.why}" if error.why else what) from None


def _pass(bprm: Binprm, file: Program) -> None:
    """Keep the file open for the interpreter; only one can be."""
    if bprm.passed is not None:
        raise LinuxError(ENOEXEC, f"{bprm.passed.name} is passed as a descriptor already, {file.name} cannot be too")
    bprm.passed = file
    bprm.stage("exec_binprm", 0, f"{file.name} stays open for the interpreter, which finds it by AT_EXECFD")


def _chain(bprm: Binprm) -> str:
    return " -> ".join([script.name for script in bprm.scripts] + [bprm.program.name])
