"""Facts about the Unicorn core that an upgrade of the library must not change, and what the core adds."""

from __future__ import annotations

import struct

import pytest

from loadstone.errors import HostError
from loadstone.machine.core import EXCEPTION, INTERRUPTED, SLICE_END, STOPPED_AT, SYSTEM_CALL
from loadstone.machine.cpuid import HWCAP, cpuid
from loadstone.machine.paging import ACCESSED, DIRTY, FRAME_MASK, permissions
from loadstone.machine.physical import ANONYMOUS, FRAME_SIZE
from loadstone.machine.unicorn_core import UnicornCore
from machine.bare import CODE, DATA, STACK_TOP, Bad, Bare, Fault, R, W, X
from machine.code import assemble
from support.compilers import Compiler
from support.run import native

FAR = 0x700000  # nothing is there at first


def registers(bare: Bare, *names: str) -> tuple[int, ...]:
    return tuple(bare.context.read(name) for name in names)


# -- system calls, slices, interrupts ---------------------------------------------------------------------------------


def test_a_system_call_stops_behind_the_instruction(bare: Bare) -> None:
    text = "mov eax, 1; mov edi, 2; mov esi, 3; mov edx, 4; mov r10d, 5; mov r8d, 6; mov r9, -1; syscall; nop; syscall"
    code = assemble(text, CODE)
    assert bare.start(text).kind == SYSTEM_CALL
    assert bare.context.system_call() == (1, 2, 3, 4, 5, 6, (1 << 64) - 1)
    assert bare.context.pc == CODE + code.index(b"\x0f\x05") + 2
    bare.context.set_result(-2)
    assert registers(bare, "rax", "rcx", "r11") == ((1 << 64) - 2, bare.context.pc, bare.context.read("eflags"))
    assert bare.run().kind == SYSTEM_CALL
    assert bare.context.pc == CODE + len(code)


def test_a_pc_that_is_set_in_a_system_call_is_where_the_program_goes_on(bare: Bare) -> None:
    bare.start("syscall; ud2; mov ebx, 7; syscall")
    bare.context.system_call()
    bare.context.pc = CODE + 4
    assert bare.run().kind == SYSTEM_CALL
    assert registers(bare, "rbx") == (7,)


LOOP = "mov ecx, 10000000; 1: add rax, rcx; xor rax, 5; dec ecx; jnz 1b; syscall"


def test_a_slice_ends_and_goes_on(bare: Bare) -> None:
    assert bare.start(LOOP, budget=10_000).kind == SLICE_END
    left = bare.context.read("rcx")
    assert 0 < left < 10_000_000
    assert 9_980 <= bare.core.retired <= 10_100
    assert bare.run(10_000).kind == SLICE_END
    assert bare.context.read("rcx") < left


def test_slices_are_the_same_on_every_run() -> None:
    def run() -> list[tuple[int, int, int]]:
        bare = Bare()
        bare.load("mov ecx, 30000; 1: push rcx; call 2f; pop rcx; dec ecx; jnz 1b; syscall; 2: xor eax, ecx; ret")
        bare.context.pc, bare.context.sp = CODE, STACK_TOP - 64
        trace = []
        while True:
            trap = bare.run(20_000)
            trace.append((bare.core.retired, bare.context.pc, bare.context.read("rcx")))
            if trap.kind == SYSTEM_CALL:
                bare.close()
                return trace

    first = run()
    assert len(first) > 10
    assert first == run()


def test_a_computation_is_not_disturbed_by_slices(bare: Bare) -> None:
    text = "mov ecx, 20000; 1: imul rax, rax, 77; add rax, rcx; dec ecx; jnz 1b; syscall"
    while bare.start(text, budget=1 << 40).kind != SYSTEM_CALL:
        pass
    whole = bare.context.read("rax")
    value = 0
    for n in range(20000, 0, -1):
        value = (value * 77 + n) & (1 << 64) - 1
    assert whole == value
    bare.context.write("rax", 0)
    trap = bare.start(text, budget=100)
    while trap.kind == SLICE_END:
        trap = bare.run(997)
    assert bare.context.read("rax") == value


def test_interrupt_makes_run_return(bare: Bare) -> None:
    bare.load("jmp .")
    bare.context.pc = CODE
    bare.core.interrupt()
    assert bare.run().kind == INTERRUPTED
    assert bare.run(1000).kind == SLICE_END


# -- faults -----------------------------------------------------------------------------------------------------------


def test_the_fault_path_gets_exact_addresses(bare: Bare) -> None:
    bare.space.allow(FAR, 4, R | W)
    text = f"mov ebx, {FAR + 0x123}; mov eax, [rbx]; inc ecx; mov [rbx + 0x1000], eax; syscall"
    bare.start(text)
    assert bare.faults == [Fault(FAR + 0x123, R, CODE + 5), Fault(FAR + 0x1123, W, CODE + 9)]


def test_accessed_and_dirty_bits_are_set_as_the_cpu_does(bare: Bare) -> None:
    bare.space.allow(FAR, 1, R | W)
    bare.load(f"mov ebx, {FAR}; mov eax, [rbx]; syscall; mov [rbx], eax; syscall")
    bare.context.pc = CODE
    bare.run()
    assert bare.space.entry(FAR) & (ACCESSED | DIRTY) == ACCESSED
    bare.run()
    assert bare.space.entry(FAR) & (ACCESSED | DIRTY) == ACCESSED | DIRTY
    assert len(bare.faults) == 1  # a dirty bit is no fault
    assert bare.space.entry(CODE) & (ACCESSED | DIRTY) == ACCESSED


def test_a_cleared_dirty_bit_is_set_by_the_next_write(bare: Bare) -> None:
    bare.load("1: mov [rbx], eax; syscall; jmp 1b")
    bare.context.pc = CODE
    bare.context.write("rbx", DATA)
    bare.run()
    slot = bare.space.page_table.find(DATA)
    bare.memory.words[slot] &= ~DIRTY
    bare.core.invalidate(bare.space.page_table.root, DATA, DATA + FRAME_SIZE, [])
    bare.run()
    assert bare.memory.words[slot] & DIRTY


def test_a_refused_access_is_an_exception_at_the_instruction(bare: Bare) -> None:
    trap = bare.start(f"mov ebx, {FAR + 8}; mov ecx, 1; mov [rbx + rcx * 4], rdx; mov ecx, 2")
    assert (trap.kind, trap.vector, trap.failure) == (EXCEPTION, 14, Bad(FAR + 12, W))
    assert bare.context.pc == CODE + 10
    assert registers(bare, "rcx") == (1,)


def test_rep_movsb_stops_in_the_middle_with_its_registers_right(bare: Bare) -> None:
    bare.space.put(DATA, bytes(range(256)) * 16)
    bare.space.map(FAR, R | W)
    text = f"mov esi, {DATA}; mov edi, {FAR + 0xF00}; mov ecx, 0x200; rep movsb; syscall"
    trap = bare.start(text)
    assert (trap.vector, trap.failure) == (14, Bad(FAR + 0x1000, W))
    assert registers(bare, "rsi", "rdi", "rcx") == (DATA + 0x100, FAR + 0x1000, 0x100)
    bare.space.map(FAR + 0x1000, R | W)
    assert bare.run().kind == SYSTEM_CALL
    assert bare.space.bytes_at(FAR + 0xF00, 256) == bytes(range(256))
    assert bare.space.bytes_at(FAR + 0x1000, 256) == bytes(range(256))


def test_a_store_into_a_read_only_page_across_a_boundary_leaves_the_first_half_unwritten(bare: Bare) -> None:
    bare.space.map(FAR, R | W)
    bare.space.map(FAR + FRAME_SIZE, R)
    trap = bare.start(f"mov rax, -1; mov ebx, {FAR + 0xFFC}; mov [rbx], rax; syscall")
    assert (trap.vector, trap.failure) == (14, Bad(FAR + 0x1000, W))
    assert bare.space.bytes_at(FAR + 0xFFC, 4) == bytes(4)
    assert bare.space.bytes_at(FAR + 0x1000, 4) == bytes(4)


def test_an_instruction_across_a_boundary_faults_on_its_second_page(bare: Bare) -> None:
    at = CODE + FRAME_SIZE - 3
    code = assemble("mov eax, 0x12345678; syscall")
    bare.space.map(CODE, R | X)
    bare.space.put(at, code[:3])
    bare.space.allow(CODE + FRAME_SIZE, 1, R | X)
    bare.context.pc = at
    trap = bare.run()  # the second page comes as zeros: the instruction is mov eax, 0x1678 and then add [rax], al
    assert bare.faults[0] == Fault(CODE + FRAME_SIZE, X, at)
    assert (trap.vector, bare.context.pc) == (14, at + 5)
    assert registers(bare, "rax") == (0x5678,)


def test_no_execute_is_kept(bare: Bare) -> None:
    bare.space.put(DATA, b"\x90\x0f\x05")
    trap = bare.start(f"mov eax, {DATA}; mov ebx, [rax]; jmp rax")
    assert (trap.vector, trap.failure, bare.context.pc) == (14, Bad(DATA, X), DATA)


def test_an_error_in_the_fault_path_comes_out_of_run(bare: Bare) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("in the fault path")

    bare.core._fill.resolve = fail
    with pytest.raises(ZeroDivisionError, match="in the fault path"):
        bare.start(f"mov eax, [{FAR}]; syscall")


def test_a_page_that_is_taken_away_is_not_seen_any_more(bare: Bare) -> None:
    bare.load(f"1: mov eax, [{DATA}]; syscall; jmp 1b")
    bare.context.pc = CODE
    assert bare.run().kind == SYSTEM_CALL
    slot = bare.space.page_table.find(DATA)
    bare.memory.words[slot] = 0
    bare.core.invalidate(bare.space.page_table.root, DATA, DATA + FRAME_SIZE, [])
    assert bare.run().failure == Bad(DATA, R)


def test_a_page_that_is_retargeted_shows_the_new_frame(bare: Bare) -> None:
    bare.load(f"1: mov eax, [{DATA}]; syscall; jmp 1b")
    bare.space.put(DATA, struct.pack("<I", 1))
    bare.context.pc = CODE
    bare.run()
    frame = bare.space.map(DATA, R)
    bare.memory.words[frame * 512] = 2
    bare.core.invalidate(bare.space.page_table.root, DATA, DATA + FRAME_SIZE, [])
    bare.run()
    assert registers(bare, "rax") == (2,)


def test_a_page_that_loses_write_permission_refuses_the_next_write(bare: Bare) -> None:
    bare.load(f"1: mov [{DATA}], eax; syscall; jmp 1b")
    bare.context.pc = CODE
    bare.run()
    slot = bare.space.page_table.find(DATA)
    bare.memory.words[slot] &= ~2
    bare.core.invalidate(bare.space.page_table.root, DATA, DATA + FRAME_SIZE, [])
    assert bare.run().failure == Bad(DATA, W)


def test_many_pages_are_right_through_flushes_of_the_tlb(bare: Bare) -> None:
    pages = 1500
    bare.space.allow(FAR, pages, R | W)
    text = f"""mov ebx, {FAR}; mov ecx, {pages}
    1: mov [rbx], ebx; add ebx, 4096; dec ecx; jnz 1b
    mov edx, 3; 3: mov ebx, {FAR}; mov ecx, {pages}
    2: mov eax, [rbx]; add rsi, rax; add ebx, 4096; dec ecx; jnz 2b; dec edx; jnz 3b; syscall"""
    assert bare.start(text).kind == SYSTEM_CALL
    assert registers(bare, "rsi") == (3 * sum(range(FAR, FAR + pages * FRAME_SIZE, FRAME_SIZE)),)
    assert len(bare.faults) == pages
    assert bare.core.flushes > 1


@pytest.mark.parametrize(("pages", "whole"), [(1, False), (32, False), (33, True), (1, None)])
def test_few_pages_are_forgotten_one_by_one(bare: Bare, pages: int, whole: bool | None) -> None:
    """`whole`: whether all of the TLB is forgotten instead; None: on a library that can only do that."""
    if whole is None:
        bare.core._engine.flush_page, whole = None, True
    bare.space.allow(FAR, pages, R | W)
    text = f"""1: mov ebx, {FAR}; mov ecx, {pages}
    2: mov [rbx], ebx; add ebx, 4096; dec ecx; jnz 2b; syscall; jmp 1b"""
    assert bare.start(text).kind == SYSTEM_CALL
    flushes = bare.core.flushes
    end = FAR + pages * FRAME_SIZE
    for page in range(FAR, end, FRAME_SIZE):
        bare.memory.words[bare.space.page_table.find(page)] = 0
    bare.core.invalidate(bare.space.page_table.root, FAR, end, [])
    assert bare.run().kind == SYSTEM_CALL
    assert len(bare.faults) == 2 * pages
    assert (bare.core.flushes > flushes) == whole


# -- code that changes ------------------------------------------------------------------------------------------------


def test_code_that_modifies_itself(bare: Bare) -> None:
    bare.space.map(CODE, R | W | X)
    text = "mov ecx, 3; 1: mov eax, 5; add rbx, rax; inc dword ptr [rip + 1b + 1]; dec ecx; jnz 1b; syscall"
    assert bare.start(text).kind == SYSTEM_CALL
    assert registers(bare, "rbx") == (5 + 6 + 7,)


def test_code_written_through_another_mapping_of_its_frame(bare: Bare) -> None:
    frame = bare.space.map(CODE, R | X)
    bare.memory.hold(frame)
    bare.space.map(FAR, R | W, frame)
    code = assemble("1: mov eax, 5; add rbx, rax; movb [rdi + 1], 9; dec ecx; jnz 1b; syscall")
    bare.context.write("rdi", FAR)
    bare.context.write("rcx", 2)
    assert bare.start(code).kind == SYSTEM_CALL
    assert registers(bare, "rbx") == (14,)


def test_code_written_from_python(bare: Bare) -> None:
    bare.load("1: mov eax, 5; syscall; jmp 1b")
    bare.context.pc = CODE
    bare.run()
    frame = (bare.space.entry(CODE) & FRAME_MASK) >> 12
    bare.memory.view(frame, CODE % FRAME_SIZE + 1, 1)[0] = 9
    bare.memory.written(frame)
    bare.run()
    assert registers(bare, "rax") == (9,)


@pytest.mark.parametrize("first", ["run", "written"])
def test_code_written_where_it_does_not_run(bare: Bare, first: str) -> None:
    """Several stores to one page, which only another page executes: all are seen, and none of it is a fault."""
    frame = bare.space.map(CODE, R | X)
    bare.memory.hold(frame)
    bare.space.map(FAR, R | W, frame)
    # Three functions, 256 bytes apart, each of which adds a number to rbx.
    functions = b"".join(assemble("add ebx, 0x11; ret").ljust(256, b"\0") for _ in range(3))
    bare.load(functions)
    call = "; ".join(f"mov eax, {CODE + 256 * n}; call rax" for n in range(3))
    store = "; ".join(f"movb [rdi + {256 * n + 2}], cl" for n in range(3))
    loop = f"mov ecx, 3; 1: {'; '.join((call, store) if first == 'run' else (store, call))}; dec ecx; jnz 1b; syscall"
    bare.context.write("rdi", FAR)
    bare.context.sp = STACK_TOP - 64
    bare.load(loop, at=CODE + FRAME_SIZE)
    bare.context.pc = CODE + FRAME_SIZE
    assert bare.run().kind == SYSTEM_CALL
    assert registers(bare, "rbx") == (3 * (0x11 + 3 + 2 if first == "run" else 3 + 2 + 1),)
    assert [fault.address for fault in bare.faults] == [STACK_TOP - 72]


def test_code_written_by_another_process(bare: Bare) -> None:
    frame = bare.space.map(CODE, R | X)
    other, context = bare.new_space(), bare.core.new_context()
    bare.memory.hold(frame)
    other.map(FAR, R | W, frame)
    bare.load(f"1: mov eax, {FAR}; movb [rax + 1], cl; syscall; jmp 1b", space=other, at=CODE + FRAME_SIZE)
    bare.load("1: mov eax, 5; syscall; jmp 1b")
    bare.context.pc, context.pc = CODE, CODE + FRAME_SIZE
    for value in (7, 8, 9):
        context.write("rcx", value)
        assert bare.run(context=context, space=other).kind == SYSTEM_CALL
        context.set_result(0)
        assert bare.run().kind == SYSTEM_CALL
        assert registers(bare, "rax") == (value,)


def test_a_page_that_executes_and_is_written_elsewhere_refuses_what_it_refused(bare: Bare) -> None:
    """However the core keeps writing and running apart: the program is never let do more than its pages allow."""
    frame = bare.space.map(CODE, R | X)
    bare.memory.hold(frame)
    bare.space.map(FAR, R | W, frame)
    assert bare.start(f"mov eax, {FAR}; movb [rax + 64], 0xc3; movb [rip], 1").kind == EXCEPTION
    assert bare.faults[-1].access == W
    assert bare.start(f"mov eax, {FAR}; movb [rax + 64], 0xc3; jmp rax").kind == EXCEPTION
    assert (bare.faults[-1].address, bare.faults[-1].access) == (FAR, X)
    frames = 0xFFFF_8000_0000_0000 + frame * FRAME_SIZE  # where the core itself can execute every frame
    assert bare.start(f"movabs rax, {frames}; call rax").kind == EXCEPTION


def test_copy_on_write_of_a_page_whose_code_runs(bare: Bare) -> None:
    """A store to the page that the code is in, whose fault moves the page to another frame with other code behind."""
    original = bare.space.map(CODE, R | X)
    copies = []

    def copy(space: object, address: int, access: int, pc: int) -> Bad | None:
        bare.faults.append(Fault(address, access, pc))
        if access != W or copies:
            return Bad(address, access)
        frame = bare.memory.allocate(ANONYMOUS)
        bare.memory.page(frame)[:] = bare.memory.page(original)
        bare.memory.words[bare.space.page_table.slot(CODE)] = frame << 12 | permissions(7)
        bare.core.invalidate(bare.space.page_table.root, CODE, CODE + FRAME_SIZE, [original])
        copies.append(frame)
        return None

    bare.core._fill.resolve = copy
    bare.context.sp = DATA + 64
    text = "movb [rip + 1f + 1], 9; jmp 1f; .balign 64; 1: mov eax, 5; syscall"
    code = bare.load(text)
    bare.context.pc = CODE
    assert bare.run().kind == SYSTEM_CALL
    assert registers(bare, "rax") == (9,)
    assert bytes(bare.memory.view(original, 0, len(code))) == code
    assert len(copies) == 1


def test_a_frame_that_is_used_again_does_not_run_its_old_code(bare: Bare) -> None:
    bare.start("mov eax, 1; syscall")
    frame = (bare.space.entry(CODE) & FRAME_MASK) >> 12
    bare.memory.words[bare.space.page_table.find(CODE)] = 0
    bare.core.invalidate(bare.space.page_table.root, CODE, CODE + FRAME_SIZE, [frame])
    bare.memory.release(frame)
    assert bare.memory.quarantine == [frame]
    bare.core.break_at(FAR)  # everything is translated anew
    bare.load("syscall", at=CODE + FRAME_SIZE)
    bare.context.pc = CODE + FRAME_SIZE
    bare.run()
    assert bare.memory.quarantine == []
    again = bare.memory.allocate(ANONYMOUS)
    while again != frame:
        again = bare.memory.allocate(ANONYMOUS)
    bare.space.map(CODE, R | X, frame)
    bare.start("mov eax, 2; syscall")
    assert registers(bare, "rax") == (2,)


def test_a_small_memory_does_not_fill_with_frames_of_old_code() -> None:
    """Many pages of code that come and go one after another need no more frames than are there."""
    bare = Bare(frames=128)
    code = assemble("mov eax, 1; syscall")
    for _ in range(500):
        bare.load(code)
        bare.context.pc = CODE
        assert bare.run().kind == SYSTEM_CALL
        slot = bare.space.page_table.find(CODE)
        frame = (bare.memory.words[slot] & FRAME_MASK) >> 12
        bare.memory.words[slot] = 0
        bare.core.invalidate(bare.space.page_table.root, CODE, CODE + FRAME_SIZE, [frame])
        bare.memory.release(frame)
    bare.close()


# -- breakpoints ------------------------------------------------------------------------------------------------------


def test_a_breakpoint_stops_before_the_instruction_each_time(bare: Bare) -> None:
    code = bare.load("mov ecx, 3; 1: nop; inc eax; dec ecx; jnz 1b; syscall")
    place = CODE + 6  # inc eax
    bare.core.break_at(place)
    bare.context.pc = CODE
    for n in range(3):
        assert bare.run().kind == STOPPED_AT
        assert (bare.context.pc, bare.context.read("rax"), bare.context.read("rcx")) == (place, n, 3 - n)
    assert bare.run().kind == SYSTEM_CALL
    assert bare.context.pc == CODE + len(code)


def test_a_breakpoint_is_taken_back(bare: Bare) -> None:
    bare.load("1: inc eax; syscall; jmp 1b")
    bare.core.break_at(CODE)
    bare.core.break_at(CODE)  # once is enough
    bare.context.pc = CODE
    assert bare.run().kind == STOPPED_AT
    assert bare.run().kind == SYSTEM_CALL
    bare.core.unbreak(CODE)
    bare.core.unbreak(CODE)
    assert bare.run().kind == SYSTEM_CALL
    assert registers(bare, "rax") == (2,)


def test_a_breakpoint_counts_once_though_a_slice_or_an_interrupt_ends_there(bare: Bare) -> None:
    bare.load("nop; inc eax; syscall")
    bare.core.break_at(CODE + 1)
    bare.context.pc = CODE
    assert bare.run().kind == STOPPED_AT
    bare.core.interrupt()
    assert bare.run().kind == INTERRUPTED
    assert bare.run(0).kind == SLICE_END
    assert (bare.context.pc, bare.context.read("rax")) == (CODE + 1, 0)
    assert bare.run().kind == SYSTEM_CALL
    assert registers(bare, "rax") == (1,)


def test_a_breakpoint_counts_once_for_each_task(bare: Bare) -> None:
    bare.load("nop; inc eax; syscall")
    bare.core.break_at(CODE + 1)
    other = bare.core.new_context()
    for context in (bare.context, other):
        context.pc = CODE
        assert bare.run(context=context).kind == STOPPED_AT
    for context in (bare.context, other):
        assert bare.run(context=context).kind == SYSTEM_CALL
        assert context.read("rax") == 1


def test_a_breakpoint_in_code_that_already_ran(bare: Bare) -> None:
    bare.load("1: inc eax; inc ebx; syscall; jmp 1b")
    bare.context.pc = CODE
    bare.run()
    bare.core.break_at(CODE + 2)
    assert bare.run().kind == STOPPED_AT
    assert registers(bare, "rax", "rbx") == (2, 1)


# -- contexts ---------------------------------------------------------------------------------------------------------

WORK = """mov rax, [rdi]; fild qword ptr [rdi]; cvtsi2sd xmm3, rax; syscall
fistp qword ptr [rdi + 8]; cvttsd2si rbx, xmm3; syscall"""


def test_two_tasks_in_two_address_spaces(bare: Bare) -> None:
    """The same addresses are other memory; general registers, x87 and SSE state are each task's own."""
    other_space = bare.new_space()
    bare.load(WORK)
    bare.load(WORK, space=other_space)
    tasks = [(bare.context, bare.space, 111), (bare.core.new_context(), other_space, 222)]
    for context, space, value in tasks:
        space.put(DATA, struct.pack("<q", value))
        context.pc = CODE
        context.write("rdi", DATA)
    for _ in range(2):
        for context, space, _ in tasks:
            assert bare.run(context=context, space=space).kind == SYSTEM_CALL
    for context, space, value in tasks:
        assert space.bytes_at(DATA + 8, 8) == struct.pack("<q", value)
        assert (context.read("rax"), context.read("rbx")) == (value, value)


def test_registers_of_a_context_that_is_not_running(bare: Bare) -> None:
    other = bare.core.new_context()
    bare.start("mov rbx, 5; syscall")
    other.write("rbx", 77)
    other.pc, other.sp = 0x1234, 0x5678
    assert (other.read("rbx"), other.pc, other.sp) == (77, 0x1234, 0x5678)
    assert registers(bare, "rbx") == (5,)
    assert other.registers()["rbx"] == 77
    assert bare.context.registers()["rbx"] == 5


def test_a_copy_has_the_same_state_and_goes_its_own_way(bare: Bare) -> None:
    bare.start("mov rbx, 5; mov rax, 3; movq xmm7, rax; fld1; syscall; inc rbx; fld1; faddp; syscall")
    child = bare.context.copy()
    assert child.registers() == bare.context.registers()
    assert child.save_fpu() == bare.context.save_fpu()
    bare.run(context=child)
    assert (child.read("rbx"), bare.context.read("rbx")) == (6, 5)
    assert child.save_fpu()[32:42] != bare.context.save_fpu()[32:42]


def test_the_state_after_exec(bare: Bare) -> None:
    bare.start("mov rbx, 5; fld1; movq xmm1, rbx; std; syscall")
    bare.context.write("fs_base", 0x1000)
    bare.context.reset()
    wanted = {"eflags": 0x202, "cs": 0x33, "ss": 0x2B, "fcw": 0x37F, "mxcsr": 0x1F80}
    assert {name: value for name, value in bare.context.registers().items() if value} == wanted
    fresh = bytearray(512)
    struct.pack_into("<H22xII", fresh, 0, 0x37F, 0x1F80, 0xFFFF)
    assert bare.context.save_fpu() == bytes(fresh)


def test_set_result_after_reset_changes_rax_only(bare: Bare) -> None:
    """What execve returns to is the new program, whose registers are 0."""
    bare.start("mov eax, 59; syscall")
    bare.context.system_call()
    bare.context.reset()
    bare.context.pc = CODE
    bare.context.set_result(0)
    assert registers(bare, "rax", "rcx", "r11", "rip") == (0, 0, 0, CODE)


def test_extended_precision_is_the_default(bare: Bare) -> None:
    """With Unicorn's own FCW of 0, x87 computes in single precision: 1 + 2^-60 would be 1."""
    text = f"""fld1; mov dword ptr [{DATA}], -60; fild dword ptr [{DATA}]; fld1; fscale; fstp st(1); faddp
    fstp tbyte ptr [{DATA}]; syscall"""
    bare.start(text)
    mantissa, exponent = struct.unpack("<QH", bare.space.bytes_at(DATA, 10))
    assert (mantissa, exponent) == (1 << 63 | 1 << 3, 0x3FFF)


def test_selectors_can_be_loaded(bare: Bare) -> None:
    assert bare.exception("mov eax, 0x2b; mov ds, eax; mov es, eax; mov ss, eax; mov ecx, ds; ud2")[0] == 6
    assert registers(bare, "rcx", "ds", "es", "ss") == (0x2B, 0x2B, 0x2B, 0x2B)


def test_the_gdt_cannot_be_read_by_the_program(bare: Bare) -> None:
    trap = bare.start("mov eax, 0x2b; mov ds, eax; mov rax, 0xffffff8000000000; mov rbx, [rax]; ud2")
    assert (trap.vector, trap.failure) == (14, Bad(0xFFFFFF8000000000, R))


# -- the CPU that the program sees ------------------------------------------------------------------------------------


def test_cpuid_is_answered_by_us(bare: Bare) -> None:
    for leaf, subleaf in [(0, 0), (1, 0), (2, 0), (4, 0), (4, 3), (4, 9), (7, 0), (7, 1), (0xD, 0), (0x80000000, 0),
                          (0x80000001, 0), (0x80000002, 0), (0x80000004, 0), (0x80000008, 0), (99, 0)]:  # fmt: skip
        bare.start(f"mov rax, -1; mov rbx, -1; mov eax, {leaf:#x}; mov ecx, {subleaf}; cpuid; mov r8, rcx; syscall")
        assert registers(bare, "rax", "rbx", "r8", "rdx") == cpuid(leaf, subleaf)


def test_the_cpu_promises_neither_avx_nor_randomness() -> None:
    _, _, ecx, edx = cpuid(1, 0)
    assert not ecx & (1 << 26 | 1 << 27 | 1 << 28 | 1 << 12 | 1 << 29 | 1 << 30)  # XSAVE OSXSAVE AVX FMA F16C RDRAND
    assert edx == HWCAP == UnicornCore.hwcap
    _, ebx, ecx, edx = cpuid(7, 0)
    assert not ebx & (1 << 5 | 1 << 16 | 1 << 18 | 1 << 11)  # AVX2 AVX512F RDSEED RTM


def test_avx_ends_the_run_and_names_the_core_that_can(bare: Bare) -> None:
    with pytest.raises(HostError, match=r"AVX \(vaddps xmm0, xmm1, xmm2 at 0x401005\).*--engine kvm"):
        bare.start("mov eax, 1; vaddps xmm0, xmm1, xmm2; syscall")


@pytest.mark.parametrize(
    "text", ["jmp 1f; nop; 1: vzeroupper; syscall", "call 1f; 1: mov eax, 5; vpaddd ymm0, ymm1, ymm2; syscall"]
)
def test_avx_in_a_later_block(bare: Bare, text: str) -> None:
    with pytest.raises(HostError, match="AVX"):
        bare.start(text)


def test_avx_right_after_a_system_call(bare: Bare) -> None:
    bare.start("nop; syscall; vaddps ymm0, ymm1, ymm2; syscall")
    with pytest.raises(HostError, match="AVX"):
        bare.run()


def test_evex_is_refused(bare: Bare) -> None:
    with pytest.raises(HostError, match=r"AVX \(vpaddd zmm0"):
        bare.start("nop; vpaddd zmm0, zmm1, zmm2; syscall")


def test_avx_in_a_first_block_at_an_address_where_another_program_had_none(bare: Bare) -> None:
    bare.start("syscall; nop; nop; nop; nop; nop; syscall")
    bare.run()
    other, space = bare.core.new_context(), bare.new_space()
    bare.load("syscall; vaddps xmm0, xmm1, xmm2; syscall", space=space)
    other.pc = CODE
    bare.run(context=other, space=space)
    with pytest.raises(HostError, match="AVX"):
        bare.run(context=other, space=space)


def test_avx_in_a_first_block_that_has_changed(bare: Bare) -> None:
    """Unicorn tells of every block that it translates, the first after a start as well."""
    for text in ("syscall; nop; nop", "mov eax, 1; syscall"):
        assert bare.start(text).kind == SYSTEM_CALL
    with pytest.raises(HostError, match=f"vzeroupper.* at {CODE:#x}"):
        bare.start("vzeroupper; syscall")


def test_bmi_runs_right(bare: Bare) -> None:
    bare.start("""mov eax, 0xf0f0; mov ebx, 0xff00; andn ecx, eax, ebx; blsr edx, ebx; pext esi, ebx, eax
    shlx edi, eax, edx; rorx r8d, eax, 4; mov r9, rcx; syscall""")
    assert registers(bare, "r9", "rdx", "rsi", "rdi", "r8") == (0x0F00, 0xFE00, 0xF0, 0xF0F0, 0xF0F)


# -- the x87 and SSE state --------------------------------------------------------------------------------------------

FILL = """fninit; fld1; fldpi; fldz; fldl2e; fchs
mov rax, 0x1122334455667788; movq xmm0, rax; mov rax, 0x99aabbccddeeff00; movq xmm15, rax; movlhps xmm15, xmm0
push 0x27f; fldcw [rsp]; push 0x3f80; ldmxcsr [rsp]; xor eax, eax; xor ebx, ebx; ftst"""
CLEAR = "; ".join(f"pxor xmm{n}, xmm{n}" for n in range(16))
MEANINGFUL = [*range(6), *range(24, 28), *(32 + 16 * i + b for i in range(8) for b in range(10)), *range(160, 416)]


NATIVE = """
#include <unistd.h>
static char image[512] __attribute__((aligned(64)));
int main(void) {
    __asm__ volatile(".intel_syntax noprefix; sub rsp, 256; %s; fxsave [%%0]; add rsp, 272; fninit; .att_syntax prefix"
                     : : "r"(image) : "rax", "rbx", "xmm0", "xmm15", "memory");
    return write(1, image, sizeof image) != sizeof image;
}
"""


def test_the_fxsave_image_is_the_cpus(bare: Bare, compiled: Compiler) -> None:
    """The same state, saved by FXSAVE in the engine and on the host's CPU, and by us."""
    assert bare.start(f"{CLEAR}; {FILL}; fxsave [{DATA}]; syscall").kind == SYSTEM_CALL
    ours, theirs = bare.context.save_fpu(), bare.space.bytes_at(DATA, 512)
    on_one_line = f"{CLEAR}; {FILL}".replace("\n", "; ").replace("%", "%%")
    real = native(compiled(NATIVE % on_one_line, "pie")).stdout
    assert len(real) == 512
    for at in MEANINGFUL:
        assert ours[at] == theirs[at] == real[at], f"byte {at}: {ours[at]:#x}, {theirs[at]:#x}, {real[at]:#x}"


def test_an_fxsave_image_comes_back(bare: Bare) -> None:
    bare.start(f"{FILL}; syscall; fxsave [{DATA}]; syscall")
    image = bare.context.save_fpu()
    other = bare.core.new_context()
    other.load_fpu(image)
    assert other.save_fpu() == image
    other.pc = bare.context.pc
    bare.run(context=other)
    theirs = bare.space.bytes_at(DATA, 512)
    assert all(theirs[at] == image[at] for at in MEANINGFUL)


def test_closing_twice_does_no_harm() -> None:
    bare = Bare()
    bare.close()
    bare.core.close()
