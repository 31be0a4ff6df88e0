"""IPC namespaces: the tables of System V and POSIX objects (ipc/namespace.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.clone_flags import CLONE_NEWIPC
from loadstone.linux.namespaces.base import FIRST_IPC, Namespace

if TYPE_CHECKING:
    from loadstone.linux.ipc.objects import IpcObjects
    from loadstone.linux.namespaces.users import UserNamespace


class IpcNamespace(Namespace):
    """The objects that processes find by key or name here; None until somebody asks for one."""

    __slots__ = ("objects",)

    kind = "ipc"
    flag = CLONE_NEWIPC

    def __init__(self, number: int, owner: UserNamespace) -> None:
        super().__init__(number, owner)
        self.objects: IpcObjects | None = None

    def __del__(self) -> None:
        """Nobody is in it, and nobody can come into it: what is left in its tables goes (free_ipc_ns).

        The machine's first one goes with the machine.
        """
        if self.number != FIRST_IPC and self.objects is not None:
            self.objects.remove_all()
