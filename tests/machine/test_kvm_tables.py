"""Ring 0 of the KVM core as bytes in memory: no KVM is needed to look at them."""

from __future__ import annotations

from loadstone.machine.kvm_tables import KernelHalf
from loadstone.machine.paging import FRAME_MASK
from loadstone.machine.physical import ENTRIES, FRAME_SHIFT, FRAME_SIZE, PhysicalMemory

IDT_PAGE = 1


def test_ring_3_may_call_the_gates_that_linux_opens_and_no_others() -> None:
    """INT3, INTO and `int 0x80`: a gate's ring is in bits 5 and 6 of its byte 5 (Intel SDM vol. 3, figure 6-8)."""
    memory = PhysicalMemory(64 * FRAME_SIZE)
    half = KernelHalf(memory)
    table = memory.page((memory.words[half.table * ENTRIES + IDT_PAGE] & FRAME_MASK) >> FRAME_SHIFT)
    rings = [table[16 * vector + 5] >> 5 & 3 for vector in range(256)]
    table.release()
    half.release()
    memory.close()
    assert [vector for vector, ring in enumerate(rings) if ring == 3] == [3, 4, 0x80]
    assert set(rings) == {0, 3}
