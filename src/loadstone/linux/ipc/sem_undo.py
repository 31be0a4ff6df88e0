"""What becomes of semaphores when those who used SEM_UNDO have ended (ipc/sem.c: struct sem_undo_list, exit_sem)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.state import task_state

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.ipc.semaphores import SemaphoreSet


class UndoList:
    """What a task, or several that share it (CLONE_SYSVSEM), will take back.

    Attributes:
        users: how many tasks share it.
        changes: by set, what is to be added to each of its semaphores by number; the set used last comes last.
    """

    __slots__ = ("changes", "users")

    def __init__(self) -> None:
        self.users = 1
        self.changes: dict[SemaphoreSet, dict[int, int]] = {}

    def of(self, semaphores: SemaphoreSet) -> dict[int, int]:
        """What is to be added to the semaphores of a set."""
        changes = self.changes.pop(semaphores, None)
        if changes is None:
            changes = {}
            semaphores.undone_by.append(self)
        self.changes[semaphores] = changes
        return changes

    def leave(self, pid: int) -> None:
        """A task of process `pid` shares it no more; with the last one all is taken back."""
        self.users -= 1
        if self.users:
            return
        while self.changes:
            semaphores, changes = self.changes.popitem()
            semaphores.undone_by.remove(self)
            semaphores.undo(changes, pid)


def undo_list_of(task: Task) -> UndoList:
    """The task's own; made when first asked for."""
    state = task_state(task)
    if state.undo is None:
        state.undo = UndoList()
    return state.undo


def share_undo(task: Task, child: Task) -> None:
    """CLONE_SYSVSEM: from now on the child adds to the same list."""
    undo = undo_list_of(task)
    undo.users += 1
    task_state(child).undo = undo


def leave_undo(task: Task) -> None:
    """The task ends, or wants a list of its own."""
    state = task_state(task)
    undo, state.undo = state.undo, None
    if undo is not None:
        undo.leave(task.process.pid)
