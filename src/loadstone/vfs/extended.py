"""Extended attributes: kept in memory with the overlay, the host's `user.` ones read through. Source: fs/xattr.c.

In a directory handed over with `--rw` the `user.` attributes are the host's own. Of the other name spaces the host's
are never shown: they say what its kernel may do with the file.
"""

from __future__ import annotations

import os
from errno import EACCES, EEXIST, EINVAL, EIO, ENODATA, ENOSPC, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING, Final, TypeVar

from loadstone.errors import LinuxError
from loadstone.vfs.flags import R_OK, S_IFDIR, S_IFMT, S_IFREG, S_ISVTX, W_OK
from loadstone.vfs.inode import may
from loadstone.vfs.overlaid import Overlaid
from loadstone.vfs.passthrough import Through

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.vfs.host import HostNode
    from loadstone.vfs.inode import Identity, Inode

Answer = TypeVar("Answer")

CREATE, REPLACE = 1, 2  # XATTR_CREATE, XATTR_REPLACE
USER: Final = "user."
ACCESS_LISTS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_KEPT = (USER, "trusted.", "security.")
_MOST_BYTES: Final = 65_536  # of names and values of one file, as ext4 with its one block has still less


def get(inode: Inode, name: str, who: Identity) -> bytes:
    """The value of an attribute; ENODATA."""
    if name in ACCESS_LISTS and isinstance(inode, Through | Overlaid) and not inode.is_symlink:
        raise LinuxError(ENODATA, "no file has an access control list")
    _demand(inode, name, R_OK, who)
    if isinstance(inode, Through):
        return _host_value(inode.node, name)
    assert isinstance(inode, Overlaid)
    own = _own(inode)
    if own is not None:
        if name not in own:
            raise LinuxError(ENODATA)
        return own[name]
    if inode.lower is None or not name.startswith(USER):
        raise LinuxError(ENODATA)
    return _host_value(inode.lower, name)


def names(inode: Inode, who: Identity) -> list[str]:
    """The names of all attributes; `trusted.` ones are for root."""
    if isinstance(inode, Through):
        return _host_names(inode.node)
    if not isinstance(inode, Overlaid):
        return []
    own = _own(inode)
    if own is None:
        return _host_names(inode.lower) if inode.lower is not None else []
    return [name for name in own if who.fsuid == 0 or not name.startswith("trusted.")]


def put(inode: Inode, name: str, value: bytes, flags: int, who: Identity) -> None:
    """Set an attribute; with CREATE it must be new (EEXIST), with REPLACE it must be there (ENODATA)."""
    _demand(inode, name, W_OK, who)
    if isinstance(inode, Through):
        _on_host(lambda path: os.setxattr(path, name, value, flags, follow_symlinks=False), inode.node)
        return
    assert isinstance(inode, Overlaid)
    own = _owned(inode)
    if flags & CREATE and name in own:
        raise LinuxError(EEXIST)
    if flags & REPLACE and name not in own:
        raise LinuxError(ENODATA)
    cost = len(name) + len(value) - (len(name) + len(own[name]) if name in own else 0)
    if sum(len(key) + len(text) for key, text in own.items()) + cost > _MOST_BYTES:
        raise LinuxError(ENOSPC)
    inode.fs.budget.take(cost)
    own[name] = value
    inode.ctime_ns = inode.fs.now()


def remove(inode: Inode, name: str, who: Identity) -> None:
    """Take an attribute away; ENODATA."""
    _demand(inode, name, W_OK, who)
    if isinstance(inode, Through):
        _on_host(lambda path: os.removexattr(path, name, follow_symlinks=False), inode.node)
        return
    assert isinstance(inode, Overlaid)
    own = _owned(inode)
    if name not in own:
        raise LinuxError(ENODATA)
    inode.fs.budget.take(-len(name) - len(own.pop(name)))
    inode.ctime_ns = inode.fs.now()


def _demand(inode: Inode, name: str, mask: int, who: Identity) -> None:
    """Whether `who` may read or write such an attribute of such a file (xattr_permission)."""
    kind, writes = inode.mode & S_IFMT, bool(mask & W_OK)
    if name.startswith("trusted.") and who.fsuid != 0:
        raise LinuxError(EPERM if writes else ENODATA)
    if name.startswith(USER):
        if kind not in (S_IFREG, S_IFDIR):
            raise LinuxError(EPERM if writes else ENODATA)
        if writes and kind == S_IFDIR and inode.mode & S_ISVTX and who.fsuid not in (0, inode.uid):
            raise LinuxError(EPERM)
        if not may(inode, mask, who):
            raise LinuxError(EACCES)
    elif name.startswith("security.") and writes and who.fsuid != 0:
        raise LinuxError(EPERM)
    kept = (USER,) if isinstance(inode, Through) else _KEPT
    if not isinstance(inode, Through | Overlaid) or not name.startswith(kept):
        raise LinuxError(EOPNOTSUPP)
    if name in _KEPT:
        raise LinuxError(EINVAL, "the name ends where it should begin")


def _own(inode: Overlaid) -> dict[str, bytes] | None:
    """What was set here; None while the file has its host's."""
    return inode.fs.extended.get(inode) if inode.fs.extended is not None else None


def _owned(inode: Overlaid) -> dict[str, bytes]:
    """What was set here, begun with a copy of the host's."""
    fs = inode.fs
    if fs.extended is None:
        from weakref import WeakKeyDictionary

        fs.extended = WeakKeyDictionary()
    own = fs.extended.get(inode)
    if own is None:
        lower = inode.lower
        own = {name: _host_value(lower, name) for name in _host_names(lower)} if lower is not None else {}
        inode.alter()
        fs.extended[inode] = own
    return own


def _host_names(node: HostNode) -> list[str]:
    try:
        found = _on_host(lambda path: os.listxattr(path, follow_symlinks=False), node)
    except LinuxError:
        return []  # a file system without them
    return [name for name in found if name.startswith(USER)]


def _host_value(node: HostNode, name: str) -> bytes:
    return _on_host(lambda path: os.getxattr(path, name, follow_symlinks=False), node)


def _on_host(ask: Callable[[str], Answer], node: HostNode) -> Answer:
    """Ask the host about a file, by its name in its directory's descriptor; no link is followed."""
    if node.parent is None:
        where = f"/proc/self/fd/{node.directory_fd()}/."
    elif not node.name:
        raise LinuxError(EOPNOTSUPP, "the file has no name on the host")
    else:
        where = f"/proc/self/fd/{node.parent.directory_fd()}/{node.name}"
    try:
        return ask(where)
    except OSError as error:
        raise LinuxError(error.errno or EIO) from None
