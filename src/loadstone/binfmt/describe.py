"""What a file looks like that no binary format handler takes: one clause for an error message."""

from __future__ import annotations

from loadstone.binfmt.elf import header_of
from loadstone.binfmt.names import EM_386, EM_486, EM_X86_64, ET_DYN, ET_EXEC, file_type, program_of

# The magic number at the start -> what it is.
_MAGICS = (
    (b"\xcf\xfa\xed\xfe", "a Mach-O program (macOS)"),
    (b"\xce\xfa\xed\xfe", "a Mach-O program (macOS)"),
    (b"\xfe\xed\xfa\xcf", "a Mach-O program (macOS)"),
    (b"\xfe\xed\xfa\xce", "a Mach-O program (macOS)"),
    (b"!<arch>\n", "an archive (ar)"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"\xfd7zXZ\0", "xz data"),
    (b"BZh", "bzip2 data"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\0asm", "a WebAssembly module"),
    (b"BC\xc0\xde", "LLVM bitcode"),
    (b"bFLT", "a bFLT program (uClinux)"),
    (b"%PDF-", "a PDF document"),
    (b"\xef\xbb\xbf#!", "a script with a byte-order mark before its `#!`"),
)

# The low 16 bits of a_midmag (`<linux/a.out.h>`).
_AOUT = {0o407: "OMAGIC", 0o410: "NMAGIC", 0o413: "ZMAGIC", 0o314: "QMAGIC"}


def describe(head: bytes, size: int) -> str:
    """Say what the file is, judged by its first bytes: `an AArch64 program, ...`.

    Args:
        head: the first bytes, padded with zeros (at least 128).
        size: the file's size in bytes.
    """
    if size == 0:
        return "an empty file"
    if head[:4] == b"\x7fELF":
        return _describe_elf(head, size)
    for magic, what in _MAGICS:
        if head.startswith(magic):
            return f"{what}, which no binary format handler takes"
    if head[:4] == b"\xca\xfe\xba\xbe":
        # A fat binary counts its architectures where a class file has its version, 45 or more.
        return "a Mach-O fat program (macOS)" if int.from_bytes(head[4:8], "big") < 40 else "a Java class file"
    if head[:2] == b"MZ":
        return _describe_dos(head)
    aout = _AOUT.get(int.from_bytes(head[:2], "little"))
    if aout and size >= 32:
        return f"an a.out program ({aout}), a format that Linux dropped in 5.19"
    if _is_text(head[: min(size, len(head))]):
        return "text without a `#!` line (a shell would run it itself)"
    return "data in no known executable format"


def _describe_elf(head: bytes, size: int) -> str:
    if size < 20:
        return f"an ELF file cut off after {size} bytes"
    header = header_of(head)
    if header is None:
        return "an ELF file cut off in its header"
    order = "big-endian " if head[5] == 2 else ""
    if header.type not in (ET_EXEC, ET_DYN):
        kinds = {1: "an object file, not linked yet", 4: "a core dump"}
        return f"{kinds.get(header.type, 'neither EXEC nor DYN')} (an ELF file of type {file_type(header.type)})"
    what = program_of(header.machine)
    if order:
        what = f"a {order}ELF file, {what}"
    if header.machine in (EM_386, EM_486):
        return f"{what}, and this kernel has no IA-32 emulation" if not order else what
    if header.machine == EM_X86_64:
        return f"{what} with inconsistent headers"
    return f"{what}, not one for this machine"


def _describe_dos(head: bytes) -> str:
    place = int.from_bytes(head[0x3C:0x40], "little")
    if head[place : place + 4] == b"PE\0\0":
        return "a Windows program (PE), which Linux does not run by itself"
    return "a DOS or Windows program (MZ), which Linux does not run by itself"


def _is_text(data: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\n\r\f\x1b" for byte in data) and b"\x7f" not in data
