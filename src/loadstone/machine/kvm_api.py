"""The host's KVM, as far as a core needs it: ioctl numbers, structure layouts, one class a file descriptor.

Numbers and layouts are those of <linux/kvm.h> and <asm/kvm.h>; a test compares them with the compiler's.
"""

from __future__ import annotations

import mmap
import os
import struct
from fcntl import ioctl

from loadstone.errors import HostError

DEVICE = "/dev/kvm"
API_VERSION = 12

GET_API_VERSION, CREATE_VM, CHECK_EXTENSION, GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE03, 0xAE04
GET_SUPPORTED_CPUID = 0xC008AE05
CREATE_VCPU, SET_USER_MEMORY_REGION = 0xAE41, 0x4020AE46
RUN, SET_MSRS, SET_CPUID2, SET_SIGNAL_MASK = 0xAE80, 0x4008AE89, 0x4008AE90, 0x4004AE8B
GET_SREGS = 0x8138AE83
GET_XSAVE, SET_XSAVE = 0x9000AEA4, 0x5000AEA5
GET_XCRS, SET_XCRS = 0x8188AEA6, 0x4188AEA7

CAP_SYNC_REGS, CAP_DISABLE_QUIRKS = 74, 116
ENABLE_CAP = 0x4068AEA3
QUIRK_FIX_HYPERCALL = 32  # KVM would write into the code of a program that executes the other maker's VMCALL
SYNC_REGS, SYNC_SREGS, SYNC_EVENTS = 1, 2, 4  # kvm_valid_regs, kvm_dirty_regs

EXIT_HLT, EXIT_MMIO, EXIT_SHUTDOWN = 5, 6, 8
EXIT_NAMES = {
    0: "unknown", 1: "exception", 2: "port access", 3: "hypercall", 4: "debug", 5: "halt", 6: "device memory access",
    7: "interrupt window", 8: "shutdown", 9: "failed entry", 10: "interrupted", 17: "internal error",
}  # fmt: skip

# struct kvm_run: where its fields are
RUN_IMMEDIATE_EXIT, RUN_EXIT_REASON, RUN_DETAIL = 1, 8, 32
RUN_VALID_REGS, RUN_DIRTY_REGS, RUN_REGS, RUN_SREGS, RUN_EVENTS = 288, 296, 304, 448, 760
# struct kvm_regs: words from RUN_REGS on
REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "rip", "eflags",
)  # fmt: skip
# struct kvm_sregs: CS DS ES FS GS SS TR LDT of 24 bytes each, GDT and IDT of 16, then CR0 CR2 CR3 CR4 CR8 EFER
SREGS_SIZE, REGS_SIZE = 312, 144
XSAVE_SIZE = 4096


def segment(
    selector: int, kind: int, ring: int, *, base: int = 0, limit: int = 0xFFFF_FFFF, long: int = 0, big: int = 0,
    system: int = 0,
) -> bytes:  # fmt: skip
    """`struct kvm_segment`: a present segment of descriptor type `kind` (Intel SDM vol. 3, 3.4.5.1)."""
    flat = int(limit == 0xFFFF_FFFF)
    return struct.pack("<QIH10B", base, limit, selector, kind, 1, ring, big, 1 - system, long, flat, 0, 0, 0)


class Device:
    """/dev/kvm, open. Raises HostError, with a sentence for a person, where it cannot be used."""

    def __init__(self, path: str = DEVICE) -> None:
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise HostError(f"the KVM core needs {path}, which this host does not have", ADVICE) from None
        except PermissionError:
            raise HostError(
                f"{path}: this user may not open it", f"join the group that owns {path} (often kvm), or {ADVICE}"
            ) from None
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}", ADVICE) from error
        try:
            version = ioctl(self.fd, GET_API_VERSION, 0)
        except OSError as error:
            self.close()
            raise HostError(f"{path} is not KVM: {error.strerror}", ADVICE) from error
        if version != API_VERSION or os.uname().machine != "x86_64":
            self.close()
            raise HostError(f"{path}: API version {version} on {os.uname().machine} is not one for x86-64", ADVICE)

    def has(self, capability: int) -> int:
        """The value of KVM_CHECK_EXTENSION; 0: the host does not have it."""
        return ioctl(self.fd, CHECK_EXTENSION, capability)

    def cpuid(self) -> bytes:
        """`struct kvm_cpuid2` of what the host's KVM supports: a count, then entries of 40 bytes."""
        buffer = bytearray(struct.pack("<II", 256, 0) + bytes(40 * 256))
        ioctl(self.fd, GET_SUPPORTED_CPUID, buffer)
        (count,) = struct.unpack_from("<I", buffer)
        return bytes(buffer[: 8 + 40 * count])

    def vcpu_size(self) -> int:
        """Bytes of a vCPU's `struct kvm_run`."""
        return ioctl(self.fd, GET_VCPU_MMAP_SIZE, 0)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


ADVICE = "use --engine unicorn, or leave it to auto"


class VirtualMachine:
    """One KVM machine. Guest-physical address 0 is host address `base`; memory comes in slots as it is needed.

    KVM pays for a slot by its size (30 ms for 20 GiB), so there are as many as what is in use asks for, each as large
    as all before it. The last slot number is a single page far above memory, which no program can reach.
    """

    def __init__(self, device: Device, base: int, size: int) -> None:
        try:
            self.fd = ioctl(device.fd, CREATE_VM, 0)
        except OSError as error:
            raise HostError(f"{DEVICE} is there, but no machine can be made: {error.strerror}", ADVICE) from error
        self._base, self._size = base, size
        self._slots = 0
        self.covered = 0
        self._lever = _slot(_LEVER_SLOT, _LEVER_ADDRESS, 4096, base), _slot(_LEVER_SLOT, _LEVER_ADDRESS, 0, base)
        ioctl(self.fd, SET_USER_MEMORY_REGION, self._lever[0])
        if device.has(CAP_DISABLE_QUIRKS):
            ioctl(
                self.fd, ENABLE_CAP, struct.pack("<IIQ", CAP_DISABLE_QUIRKS, 0, QUIRK_FIX_HYPERCALL).ljust(104, b"\0")
            )

    def cover(self, end: int) -> None:
        """Let the guest reach memory up to `end` bytes at least; from `covered` on it does not exist for it."""
        while self.covered < end:
            length = min(max(self.covered, _FIRST_SLOT), self._size - self.covered)
            region = _slot(self._slots, self.covered, length, self._base + self.covered)
            ioctl(self.fd, SET_USER_MEMORY_REGION, region)
            self._slots += 1
            self.covered += length

    def flush(self) -> None:
        """Drop every cached translation of every vCPU: taking any slot away does."""
        present, absent = self._lever
        ioctl(self.fd, SET_USER_MEMORY_REGION, absent)
        ioctl(self.fd, SET_USER_MEMORY_REGION, present)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


_FIRST_SLOT = 64 << 20
_LEVER_SLOT, _LEVER_ADDRESS = 31, 1 << 45


def _slot(number: int, guest: int, length: int, host: int) -> bytes:
    """`struct kvm_userspace_memory_region`; length 0 takes the slot away."""
    return struct.pack("<IIQQQ", number, 0, guest, length, host)


class Vcpu:
    """One vCPU and the `struct kvm_run` it shares with us.

    Attributes:
        run: the shared structure as bytes. words: the same as 64-bit words (the sizes allow for it).
    """

    def __init__(self, machine: VirtualMachine, number: int, size: int) -> None:
        try:
            self.fd = ioctl(machine.fd, CREATE_VCPU, number)
        except OSError as error:
            raise HostError(f"{DEVICE} is there, but no vCPU can be made: {error.strerror}", ADVICE) from error
        self._map = mmap.mmap(self.fd, size)
        self.run = memoryview(self._map)
        self.words = self.run.cast("Q")

    def system_registers(self) -> bytes:
        """`struct kvm_sregs`."""
        buffer = bytearray(SREGS_SIZE)
        ioctl(self.fd, GET_SREGS, buffer)
        return bytes(buffer)

    def set_cpuid(self, table: bytes) -> None:
        """Install a `struct kvm_cpuid2`."""
        ioctl(self.fd, SET_CPUID2, bytearray(table))  # larger than the 1,024 bytes that ioctl takes otherwise

    def set_msrs(self, values: dict[int, int]) -> None:
        """Write model-specific registers. HostError when one is refused."""
        entries = b"".join(struct.pack("<IIQ", number, 0, value) for number, value in values.items())
        done = ioctl(self.fd, SET_MSRS, bytearray(struct.pack("<II", len(values), 0) + entries))
        if done != len(values):
            raise HostError(f"KVM refuses MSR {list(values)[done]:#x}")

    def set_xcr0(self, value: int) -> None:
        """Set XCR0, the extended states that the guest may use."""
        ioctl(self.fd, SET_XCRS, struct.pack("<II", 1, 0) + struct.pack("<IIQ", 0, 0, value).ljust(384, b"\0"))

    def xcr0(self) -> int:
        """XCR0 as KVM believes it to be."""
        buffer = bytearray(392)
        ioctl(self.fd, GET_XCRS, buffer)
        count, _ = struct.unpack_from("<II", buffer)
        return int(struct.unpack_from("<Q", buffer, 16)[0]) if count else 0

    def read_xsave(self, into: bytearray) -> None:
        """The extended state in the uncompacted format of XSAVE, 4,096 bytes."""
        ioctl(self.fd, GET_XSAVE, into)

    def write_xsave(self, image: bytearray) -> None:
        """Set the extended state."""
        ioctl(self.fd, SET_XSAVE, image)

    def set_signal_mask(self, blocked: int) -> None:
        """The signals blocked while the guest runs, as a mask with bit 0 for signal 1."""
        ioctl(self.fd, SET_SIGNAL_MASK, struct.pack("<IQ", 8, blocked))

    def close(self) -> None:
        """Close it."""
        self.words.release()
        self.run.release()
        self._map.close()
        os.close(self.fd)
        self.fd = -1
