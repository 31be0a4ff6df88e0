"""Who may look into another process, or trace it (kernel/ptrace.c, ptrace_may_access)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.capabilities import CAP_SYS_PTRACE, capable_in
from loadstone.linux.state import PR_GET_DUMPABLE, process_state

if TYPE_CHECKING:
    from loadstone.kernel.process import Process


def may_inspect(who: Process, whom: Process, *, by_file: bool = False) -> bool:
    """Whether `who` may look into `whom`: itself, one of the same user that allows it, any with CAP_SYS_PTRACE.

    `by_file`: by what it opens files as (PTRACE_MODE_FSCREDS), not by its real user and group (PTRACE_MODE_REALCREDS).
    """
    mine, theirs = who.credentials, whom.credentials
    if who is whom or capable_in(mine, theirs.users, CAP_SYS_PTRACE):
        return True
    uid, gid = (mine.fsuid, mine.fsgid) if by_file else (mine.uid, mine.gid)
    same = {uid, theirs.uid, theirs.euid, theirs.suid} == {uid} and {gid, theirs.gid, theirs.egid, theirs.sgid} == {gid}
    return same and process_state(whom).settings.get(PR_GET_DUMPABLE, 1) == 1
