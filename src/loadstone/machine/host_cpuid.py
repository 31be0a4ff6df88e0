"""The CPUID instruction, executed on the host's own CPU: what the kernel's own programs see. Only for x86-64 hosts."""

from __future__ import annotations

import ctypes
import mmap
from ctypes import c_uint32, c_void_p

from loadstone.machine.cpuid import Answer

# void answer(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]), System V calling convention
_CODE = bytes.fromhex(
    "53"  # push rbx
    "4989d0"  # mov r8, rdx
    "89f8 89f1"  # mov eax, edi; mov ecx, esi
    "0fa2"  # cpuid
    "418900 41895804 41894808 4189500c"  # mov [r8], eax … ebx, ecx, edx
    "5b c3"  # pop rbx; ret
)


class HostCpuid:
    """CPUID of the CPU that this thread happens to run on; use it in a `with`."""

    def __enter__(self) -> HostCpuid:
        self._map = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._map.write(_CODE)
        self._byte = ctypes.c_char.from_buffer(self._map)
        self._function = ctypes.CFUNCTYPE(None, c_uint32, c_uint32, c_void_p)(ctypes.addressof(self._byte))
        self._registers = (c_uint32 * 4)()
        return self

    def __exit__(self, *_: object) -> None:
        del self._function, self._byte
        self._map.close()

    def __call__(self, leaf: int, subleaf: int = 0) -> Answer:
        """EAX, EBX, ECX, EDX."""
        registers = self._registers
        self._function(leaf, subleaf, ctypes.addressof(registers))
        return registers[0], registers[1], registers[2], registers[3]
