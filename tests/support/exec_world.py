"""The verifier's world for execve, and a look at the memory of an image."""

from __future__ import annotations

from loadstone.linux.exec.new_image import ExecImage
from loadstone.verify.host_world import HostWorld

__all__ = ["HostWorld", "user_memory"]


def user_memory(image: ExecImage, address: int, length: int) -> bytes:
    """Bytes of resident pages, without any fault."""
    space, data = image.space, b""
    while len(data) < length:
        here = address + len(data)
        entry = space.page_table.entry(here)
        assert entry & 1, f"{here:#x} is not resident"
        frame = (entry & 0x000F_FFFF_FFFF_F000) >> 12
        offset = here % 4096
        data += bytes(space.memory.page(frame)[offset : offset + min(4096 - offset, length - len(data))])
    return data
