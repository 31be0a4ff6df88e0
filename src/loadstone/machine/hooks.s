# The hooks of native_code.py as source. After a change: `python -m loadstone.machine.native_code` prints the bytes for
# that file; a test assembles this one and compares.
#
# Unicorn calls a hook as a C function (System V: rdi rsi rdx rcx r8). `control` is struct Control of native_code.py.

    .intel_syntax noprefix

    .set BUDGET, 0
    .set REASON, 8
    .set STOP, 16
    .set RING_COUNT, 24
    .set RING_LIMIT, 32
    .set RING, 40
    .set MEMORY, 48
    .set ROOT, 56
    .set RESOLVE, 64
    .set FILLS, 72
    .set UC, 80
    .set SKIP, 88
    .set BLOCK, 96
    .set EXECUTED, 104
    .set WRITTEN, 112

    .set PRESENT, 1
    .set WRITABLE, 2
    .set ACCESSED, 0x20
    .set DIRTY, 0x40
    .set NO_EXECUTE, 63
    .set FRAME_MASK, 0x000ffffffffff000

# void on_syscall(uc, control): the SYSCALL instruction; stop and say why.
on_syscall:
    mov qword ptr [rsi + REASON], 1
    jmp [rsi + STOP]

# void on_block(uc, address, size, control): a block begins; note it, and stop when the slice is used up.
    .balign 16, 0xcc
on_block:
    mov [rcx + BLOCK], rsi
    mov eax, edx
    sub [rcx + BUDGET], rax
    js 1f
    ret
1:  mov qword ptr [rcx + REASON], 2
    jmp [rcx + STOP]

# void on_edge(uc, block, previous, control): a block was translated. Note it in the ring if a byte of it may be a VEX
# prefix (C4, C5) or if it cannot be seen from here; stop when the ring is nearly full.
    .balign 16, 0xcc
on_edge:
    mov r8, rcx
    mov rdi, [rsi]                      # block->pc
    movzx ecx, word ptr [rsi + 10]      # block->size
    mov rsi, rdi
    call walk
    jnz 3f                              # not mapped: let Python see to it
    mov rax, [r10]
    and rax, r11
    mov edx, edi
    and edx, 0xfff
    lea r10d, [rdx + rcx]
    cmp r10d, 0x1000
    ja 3f                               # runs over the page's end
    add rax, r9
    add rax, rdx
    mov edx, ecx
1:  test edx, edx
    jz 2f
    movzx r10d, byte ptr [rax]
    cmp r10b, 0xc5
    je 3f
    cmp r10b, 0xc4
    jne 4f
    mov r10b, [rax + 1]                 # a three-byte VEX names opcode map 1, 2 or 3 here
    and r10b, 31
    dec r10b
    cmp r10b, 2
    jbe 3f
4:  inc rax
    dec edx
    jmp 1b
2:  ret
3:  mov rax, [r8 + RING_COUNT]
    mov rdx, [r8 + RING]
    mov rsi, rax
    shl rsi, 4
    mov [rdx + rsi], rdi
    mov [rdx + rsi + 8], rcx
    inc qword ptr [r8 + RING_COUNT]
    cmp rax, [r8 + RING_LIMIT]
    jb 2b
    mov qword ptr [r8 + REASON], 3
    mov rdi, [r8 + UC]
    jmp [r8 + STOP]

# void on_code(uc, address, size, control): an instruction with a breakpoint; stop before it, unless it is the one at
# which the core stopped last time.
    .balign 16, 0xcc
on_code:
    cmp rsi, [rcx + SKIP]
    mov qword ptr [rcx + SKIP], -1
    je 1f
    mov qword ptr [rcx + REASON], 4
    jmp [rcx + STOP]
1:  ret

# bool on_fill(uc, address, type, result, control): walk the page tables as the CPU would; what they cannot answer goes
# to Python. type: 16 read, 17 write, 18 fetch.
#
# A frame of code may be written only through a translation that executes too, whose stores Unicorn checks one by one.
    .balign 16, 0xcc
on_fill:
    dec qword ptr [r8 + FILLS]
    js 9f
    call walk
    jnz 9f
    mov rax, [r10]
    and r11, rax
    mov [rcx], r11                      # result->paddr
    shr r11, 12                         # the frame
    mov r9, [r8 + EXECUTED]
    movzx r9d, byte ptr [r9 + r11]      # whether it is one of code
    cmp edx, 17
    je 1f
    cmp edx, 18
    je 2f
    or rax, ACCESSED
    jmp 3f
1:  test al, WRITABLE
    jz 9f
    or rax, ACCESSED | DIRTY
    test r9d, r9d
    jz 3f
    bt rax, NO_EXECUTE
    jc 9f                               # code is written where it does not run: Python drops what was made of it
    jmp 3f
2:  bt rax, NO_EXECUTE
    jc 9f
    or rax, ACCESSED
    test r9d, r9d
    jnz 3f
    mov r9, [r8 + WRITTEN]
    cmp byte ptr [r9 + r11], 0
    jne 9f                              # the first fetch from what the program wrote: Python sees who may write there
    mov r9, [r8 + EXECUTED]
    mov byte ptr [r9 + r11], 1
    mov r9d, 1
3:  mov [r10], rax
    mov edx, 1                          # readable
    test r9d, r9d
    jz 4f
    bt rax, NO_EXECUTE
    jc 5f
    or edx, 4                           # executable only if code ran in the frame, so that the first fetch is seen
4:  and eax, WRITABLE | DIRTY
    cmp eax, WRITABLE | DIRTY
    jne 5f
    or edx, 2                           # writable only once dirty, so that the first write is seen
    test r9d, r9d
    jnz 5f
    mov r9, [r8 + WRITTEN]
    mov byte ptr [r9 + r11], 1
5:  mov [rcx + 8], edx                  # result->perms
    mov eax, 1
    ret
9:  jmp [r8 + RESOLVE]

# walk: rsi = address, r8 = control -> ZF set and r10 = host address of a PRESENT leaf entry, or ZF clear.
# r9 = host address of physical memory, r11 = FRAME_MASK. Clobbers rax.
    .balign 16, 0xcc
walk:
    mov r9, [r8 + MEMORY]
    movabs r11, FRAME_MASK
    mov rax, rsi
    shr rax, 47
    jnz 9f                              # not in the user half
    mov r10, [r8 + ROOT]
    add r10, r9
    .irp shift, 39, 30, 21
    mov rax, rsi
    shr rax, \shift
    and eax, 511
    mov r10, [r10 + rax * 8]
    and r10, r11
    jz 8f                               # frame 0 is never a table: no table here
    add r10, r9
    .endr
    mov rax, rsi
    shr rax, 12
    and eax, 511
    lea r10, [r10 + rax * 8]
    mov eax, [r10]
    not eax
    test al, PRESENT                    # ZF when PRESENT
    ret
8:  or eax, 1
9:  ret
