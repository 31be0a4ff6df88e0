"""One file of the guest, whatever stands behind it, and who may do what with it."""

from __future__ import annotations

from errno import EACCES, EINVAL, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM, EROFS
from typing import TYPE_CHECKING, ClassVar, Final

from loadstone.errors import LinuxError
from loadstone.lean import NamedTuple, Protocol
from loadstone.vfs.flags import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID, X_OK

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location
    from loadstone.vfs.locks import FileLocks
    from loadstone.vfs.watches import Watch


CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER = 0, 1, 3  # include/uapi/linux/capability.h
DAY: Final = 86_400_000_000_000  # ns


class Identity(Protocol):
    """Who asks: any object with the three things that file permissions look at."""

    @property
    def fsuid(self) -> int:
        """The user whose rights count; 0 has CAP_DAC_OVERRIDE, CAP_FOWNER and CAP_CHOWN."""

    @property
    def fsgid(self) -> int:
        """The group whose rights count."""

    @property
    def groups(self) -> tuple[int, ...]:
        """The supplementary groups."""

    def rules(self, inode: Inode, capability: int) -> bool:
        """Whether one of the three capabilities counts on this file for a user who is not 0."""


class Credentials(NamedTuple):
    """The plainest Identity."""

    fsuid: int = 0
    fsgid: int = 0
    groups: tuple[int, ...] = ()

    def rules(self, inode: Inode, capability: int) -> bool:
        """No more than the numbers say."""
        return False


ROOT = Credentials()

Entry = tuple[str, int, int]  # name, inode number, d_type


class Inode:
    """One file. The object is the file's identity: two names of one file give one object.

    The attributes are those of stat(2), times in nanoseconds since 1970. Call `refresh()` before showing them.
    An operation that a kind of file does not have raises what the kernel raises.
    """

    __slots__ = (
        "__weakref__",
        "atime_ns",
        "blocks",
        "born_ns",
        "ctime_ns",
        "device",
        "gid",
        "inode",
        "locks",
        "mode",
        "mtime_ns",
        "nlink",
        "notes_access",
        "rdev",
        "size",
        "uid",
        "watches",
    )

    blksize: ClassVar[int] = 4096
    # Names of this directory may be remembered by the namespace. False: they come and go by themselves, as in /proc.
    cacheable: ClassVar[bool] = True
    # A remembered name must be asked for again with `still()`, because the host may change it.
    volatile: ClassVar[bool] = False
    # Root too may do only what the mode says, as in /proc/sys.
    strict: ClassVar[bool] = False
    # Something here can tie the name to a place outside (a `--rw` directory): it is not removed or renamed.
    pinned: bool = False

    def __init__(self, device: int, inode: int, mode: int, uid: int = 0, gid: int = 0, now_ns: int = 0) -> None:
        self.device = device
        self.inode = inode
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 2 if mode & S_IFMT == S_IFDIR else 1
        self.rdev = 0
        self.size = 0
        self.blocks = 0  # of 512 bytes
        self.atime_ns = self.mtime_ns = self.ctime_ns = now_ns
        self.locks: FileLocks | None = None  # kept by vfs.locks
        self.watches: tuple[Watch, ...] = ()  # told by vfs.watches
        self.born_ns = 0  # when it was made, if that is known here
        self.notes_access = False  # it has an access time that reading changes

    @property
    def is_directory(self) -> bool:
        """Whether names can be looked up in it."""
        return self.mode & S_IFMT == S_IFDIR

    @property
    def is_symlink(self) -> bool:
        """Whether path resolution goes on with its text (or with `follow()`)."""
        return self.mode & S_IFMT == S_IFLNK

    @property
    def is_regular(self) -> bool:
        """Whether it has bytes at offsets."""
        return self.mode & S_IFMT == S_IFREG

    @property
    def forgettable(self) -> bool:
        """Whether nothing is lost when its name is forgotten and looked up again."""
        return True

    @property
    def host_path(self) -> str:
        """Where the host has exactly this file's contents; "" if nowhere."""
        return ""

    @property
    def noexec(self) -> bool | None:
        """Whether the host lets nothing be executed here; None for what is not the host's: its directory knows."""
        return None

    def refresh(self) -> None:
        """Bring the attributes up to date."""

    def still(self, name: str, child: Inode) -> bool:
        """Whether `name` is still `child` (only asked of volatile directories)."""
        return True

    def lookup(self, name: str) -> Inode:
        """The file called `name`; ENOENT."""
        raise LinuxError(ENOTDIR)

    def entries(self) -> list[Entry]:
        """All names, `.` and `..` left out."""
        raise LinuxError(ENOTDIR)

    def create(self, name: str, mode: int, who: Identity) -> Inode:
        """Make an empty regular file `name`, which does not exist."""
        raise LinuxError(EACCES if self.is_directory else ENOTDIR)

    def temporary(self, mode: int, who: Identity) -> Inode:
        """Make a regular file without a name (O_TMPFILE)."""
        raise LinuxError(EROFS if self.is_directory else ENOTDIR)

    def mkdir(self, name: str, mode: int, who: Identity) -> Inode:
        """Make a directory `name`, which does not exist."""
        raise LinuxError(EACCES if self.is_directory else ENOTDIR)

    def symlink(self, name: str, target: str, who: Identity) -> Inode:
        """Make a symbolic link `name` with the text `target`."""
        raise LinuxError(EACCES if self.is_directory else ENOTDIR)

    def mknod(self, name: str, mode: int, rdev: int, who: Identity) -> Inode:
        """Make a FIFO or a socket (by the type bits of `mode`); devices are EPERM."""
        raise LinuxError(EPERM if self.is_directory else ENOTDIR)

    def link(self, name: str, inode: Inode) -> None:
        """Give `inode` another name here."""
        raise LinuxError(EPERM if self.is_directory else ENOTDIR)

    def unlink(self, name: str, inode: Inode) -> None:
        """Take away the name of `inode`, which is no directory."""
        raise LinuxError(EPERM if self.is_directory else ENOTDIR)

    def rmdir(self, name: str, inode: Inode) -> None:
        """Remove the directory `inode`; ENOTEMPTY."""
        raise LinuxError(EPERM if self.is_directory else ENOTDIR)

    def rename(self, name: str, inode: Inode, target: Inode, new_name: str, replaced: Inode | None) -> None:
        """Move `name` to directory `target` as `new_name`, in place of `replaced`. The caller has checked the kinds."""
        raise LinuxError(EPERM if self.is_directory else ENOTDIR)

    def exchange(self, name: str, inode: Inode, target: Inode, new_name: str, other: Inode) -> None:
        """Let two names change places (RENAME_EXCHANGE)."""
        raise LinuxError(EINVAL)

    def readlink(self) -> str:
        """The text of a symbolic link."""
        raise LinuxError(EINVAL)

    def follow(self) -> Location | None:
        """Where a magic link leads without a path; None for a link that is followed by its text."""
        return None

    def truncate(self, size: int) -> None:
        """Make the file `size` bytes long; what is new reads as zeros."""
        raise LinuxError(EINVAL)

    def set_mode(self, mode: int) -> None:
        """Set the twelve permission bits."""
        raise LinuxError(EPERM)

    def drop_privileges(self) -> None:
        """Lose the set-ID bits, as when somebody without CAP_FSETID changes the contents (file_remove_privs())."""
        mode = self.mode
        if mode & S_ISUID or mode & (S_ISGID | 0o010) == S_ISGID | 0o010:
            self.set_mode(mode & ~S_ISUID & (~S_ISGID if mode & 0o010 else ~0))

    def set_owner(self, uid: int, gid: int) -> None:
        """Set owner and group; -1 keeps one as it is."""
        raise LinuxError(EPERM)

    def accessed(self, relative: bool) -> None:
        """What it contains was read (asked only if `notes_access`).

        `relative`: the time changes only if it is older than a change, or than a day (relatime).
        """

    def fed(self) -> None:
        """Something was written into it, a FIFO: note the time (file_update_time)."""

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Set the times; NOW and OMIT as for utimensat(2)."""
        raise LinuxError(EPERM)

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it; permissions have been checked."""
        if self.is_symlink:
            raise LinuxError(ELOOP)
        raise LinuxError(ENXIO, "nothing stands behind this file")


def may(inode: Inode, mask: int, who: Identity) -> bool:
    """Whether `who` may do all of `mask` (R_OK, W_OK, X_OK) with `inode`. Source: fs/namei.c, generic_permission()."""
    mode = inode.mode
    if who.fsuid == 0 and not inode.strict:
        return not mask & X_OK or bool(mode & 0o111) or mode & S_IFMT == S_IFDIR
    if inode.uid == who.fsuid:
        granted = mode >> 6
    elif inode.gid == who.fsgid or inode.gid in who.groups:
        granted = mode >> 3
    else:
        granted = mode
    if not mask & ~granted & 7:
        return True
    if inode.strict or not who.rules(inode, CAP_DAC_OVERRIDE):
        return False
    return not mask & X_OK or bool(mode & 0o111) or mode & S_IFMT == S_IFDIR


def demand(inode: Inode, mask: int, who: Identity) -> None:
    """EACCES unless `who` may do all of `mask` with `inode`."""
    if not may(inode, mask, who):
        raise LinuxError(EACCES)


def in_group(who: Identity, gid: int) -> bool:
    """Whether `who` acts for the group."""
    return gid == who.fsgid or gid in who.groups


def access_time(inode: Inode, relative: bool, now: int) -> int:
    """The access time of a file that is read `now`. Source: fs/inode.c, relatime_need_update()."""
    before = inode.atime_ns
    if relative and before > inode.mtime_ns and before > inode.ctime_ns and now - before < DAY:
        return before
    return now


class EmptyDirectory(Inode):
    """A directory with nothing in it: a place to mount on, or one that stands for something hidden."""

    __slots__ = ()

    def lookup(self, name: str) -> Inode:
        """Nothing is there."""
        raise LinuxError(ENOENT)

    def entries(self) -> list[Entry]:
        """None."""
        return []

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for reading its (no) names."""
        from loadstone.vfs.open_files import DirectoryFile

        return DirectoryFile(self, flags, location)
