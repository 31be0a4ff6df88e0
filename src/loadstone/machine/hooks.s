# The hooks of native_code.py as source. After a change: `python -m loadstone.machine.assembling hooks.s` prints the bytes
# for that file; a test assembles this one and compares.
#
# All are C functions (System V: rdi rsi rdx rcx r8 r9). `control` is struct Control of native_code.py.

    .intel_syntax noprefix

    .set BUDGET, 0
    .set REASON, 8
    .set SKIP, 16
    .set PC, 24
    .set RESULTS, 32
    .set RESULT, 40
    .set RING_COUNT, 64
    .set VECTOR, 72
    .set REGISTERS, 80
    .set STOP, 152
    .set START, 160
    .set READ, 168
    .set READ_BATCH, 176
    .set WRITE_BATCH, 184
    .set UC, 192
    .set CALL_NUMBERS, 200
    .set CALL_POINTERS, 208
    .set RESULT_NUMBERS, 216
    .set RESULT_POINTERS, 224
    .set RING_LIMIT, 232
    .set RING, 240
    .set MEMORY, 248
    .set ROOT, 256
    .set EXECUTED, 264
    .set WRITTEN, 272
    .set RESOLVE, 280
    .set FILLS, 288
    .set FAULT_PC, 296
    .set ANSWER_ADDRESS, 304
    .set ANSWER_PERMISSIONS, 312
    .set BLOCK, 320
    .set CPUID_NUMBERS, 328
    .set CPUID_POINTERS, 336
    .set CPUID_VALUES, 344
    .set CPUID_ROWS, 376
    .set CPUID_END, 384
    .set SIGNALS_OPEN, 392
    .set BLOCKED, 400
    .set MASK_CALLS, 408
    .set ACTION_CALLS, 416
    .set ACTIONS, 424
    .set STATUS, 432
    .set REFUSED, 440

    .set CALL_REGISTERS, 9
    .set RESULT_REGISTERS, 3
    .set RAX_NUMBER, 35                 # as Unicorn counts registers
    .set RIP_NUMBER, 41

    .set PRESENT, 1
    .set WRITABLE, 2
    .set ACCESSED, 0x20
    .set DIRTY, 0x40
    .set NO_EXECUTE, 63
    .set FRAME_MASK, 0x000ffffffffff000

    .set SIGACTION, 13                  # numbers of calls
    .set SIGPROCMASK, 14
    .set TRAP_FLAG, 0x100
    .set ALIGNMENT_CHECK, 0x40000

# bool on_enter(control): run the program from PC on, with RESULTS registers set first; whether it has stopped for anything
# but a system call that is the kernel's. In a system call its registers are in Control, and SYSCALL's own are what it
# leaves in them: RCX where the program goes on, R11 the flags.
on_enter:
    push rbx
    push r12
    sub rsp, 8
    mov rbx, rdi
    mov ecx, [rbx + RESULTS]
    test ecx, ecx
    jz 1f
    mov rdi, [rbx + UC]
    mov rsi, [rbx + RESULT_NUMBERS]
    mov rdx, [rbx + RESULT_POINTERS]
    call [rbx + WRITE_BATCH]
    mov qword ptr [rbx + RESULTS], 0
1:  mov qword ptr [rbx + REASON], 0
    mov rdi, [rbx + UC]
    mov rsi, [rbx + PC]
    xor edx, edx
    xor ecx, ecx
    xor r8d, r8d
    call [rbx + START]
    mov eax, eax
    mov [rbx + STATUS], rax
    mov rdi, [rbx + UC]
    mov rsi, [rbx + CALL_NUMBERS]
    mov rdx, [rbx + CALL_POINTERS]
    mov ecx, CALL_REGISTERS
    call [rbx + READ_BATCH]
    mov rax, [rbx + REGISTERS + 56]
    mov [rbx + PC], rax
    mov rcx, [rbx + REASON]
    mov rdx, [rbx + VECTOR]
    dec rcx
    inc rdx
    or rcx, rdx
    or rcx, [rbx + STATUS]
    or rcx, [rbx + REFUSED]
    jnz 2f                              # no system call, or not that alone
    mov [rbx + RESULT + 8], rax
    mov r12, [rbx + REGISTERS + 64]
    mov [rbx + RESULT + 16], r12
    mov rdi, [rbx + UC]
    mov rsi, [rbx + RESULT_NUMBERS]
    mov rdx, [rbx + RESULT_POINTERS]
    add rsi, 4                          # behind RAX
    add rdx, 8
    mov ecx, RESULT_REGISTERS - 1
    call [rbx + WRITE_BATCH]
    and r12d, ALIGNMENT_CHECK
    or r12, [rbx + RING_COUNT]
    jnz 2f
    mov rcx, [rbx + REGISTERS]
    sub rcx, SIGACTION
    xor eax, eax
    cmp rcx, SIGPROCMASK - SIGACTION
    ja 3f
2:  mov eax, 1
3:  add rsp, 8
    pop r12
    pop rbx
    ret

# void on_syscall(uc, control): the SYSCALL instruction; stop and say why. But while SIGNALS_OPEN, changes of signal masks
# and actions are made here, and the program goes on, if their operands are in pages that need nothing from the kernel.
    .balign 16, 0xcc
on_syscall:
    cmp qword ptr [rsi + SIGNALS_OPEN], 0
    je 1f
    cmp qword ptr [rsi + BUDGET], 0
    jle 1f                              # the slice ends with this call
    push rbx
    mov rbx, rsi
    mov esi, RAX_NUMBER
    lea rdx, [rbx + REGISTERS]
    call [rbx + READ]
    mov rax, [rbx + REGISTERS]
    sub rax, SIGACTION
    cmp rax, SIGPROCMASK - SIGACTION
    jbe change_signals
for_the_kernel:
    mov rsi, rbx
    mov rdi, [rbx + UC]
    pop rbx
1:  mov qword ptr [rsi + REASON], 1
    jmp [rsi + STOP]

    .include "hooks_signals.s"

# bool on_nothing(...): never called; that there is a hook is what counts.
    .balign 16, 0xcc
on_nothing:
    xor eax, eax
    ret

# void on_interrupt(uc, vector, control): an exception or software interrupt of the program.
    .balign 16, 0xcc
on_interrupt:
    mov esi, esi
    mov [rdx + VECTOR], rsi
    jmp [rdx + STOP]

# int on_cpuid(uc, control): answer from a table; 1: the instruction is done. A row is leaf, part (-1: any), EAX, EBX, ECX,
# EDX; what is in no row is zeros.
    .balign 16, 0xcc
on_cpuid:
    push rbx
    mov rbx, rsi
    mov rsi, [rbx + CPUID_NUMBERS]
    mov rdx, [rbx + CPUID_POINTERS]
    mov ecx, 2                          # RAX and RCX
    call [rbx + READ_BATCH]
    mov eax, [rbx + CPUID_VALUES]
    mov ecx, [rbx + CPUID_VALUES + 8]
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    mov rdx, [rbx + CPUID_ROWS]
1:  cmp rdx, [rbx + CPUID_END]
    je 4f
    cmp [rdx], eax
    jne 2f
    cmp dword ptr [rdx + 4], -1
    je 3f
    cmp [rdx + 4], ecx
    je 3f
2:  add rdx, 24
    jmp 1b
3:  mov r8d, [rdx + 8]
    mov r9d, [rdx + 12]
    mov r10d, [rdx + 16]
    mov r11d, [rdx + 20]
4:  mov [rbx + CPUID_VALUES], r8
    mov [rbx + CPUID_VALUES + 8], r10
    mov [rbx + CPUID_VALUES + 16], r11
    mov [rbx + CPUID_VALUES + 24], r9
    mov rdi, [rbx + UC]
    mov rsi, [rbx + CPUID_NUMBERS]
    mov rdx, [rbx + CPUID_POINTERS]
    mov ecx, 4                          # RAX, RCX, RDX, RBX
    call [rbx + WRITE_BATCH]
    mov eax, 1
    pop rbx
    ret

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

# void on_edge(uc, block, previous, control): a block was translated. (Unicorn tells of all but the very first, which is in
# the stub that enters ring 3.) Note it in the ring if it has an instruction that Unicorn runs wrongly, or cannot be seen
# from here; stop when the ring is nearly full. Only where a byte may be a VEX prefix (C4, C5) is it decoded.
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
    mov r11, rax
1:  test edx, edx
    jz 2f
    movzx r10d, byte ptr [rax]
    cmp r10b, 0xc5
    je 5f
    cmp r10b, 0xc4
    jne 4f
    mov r10b, [rax + 1]                 # a three-byte VEX names opcode map 1, 2 or 3 here
    and r10b, 31
    dec r10b
    cmp r10b, 2
    jbe 5f
4:  inc rax
    dec edx
    jmp 1b
2:  ret
5:  push rdi
    push rcx
    push r8
    mov rdi, r11
    mov esi, ecx
    call find_vex
    pop r8
    pop rcx
    pop rdi
    test rax, rax
    js 2b
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

# bool on_fill(uc, address, type, result, control): walk the page tables as the CPU would. What they cannot answer goes to
# Python, as resolve(address, type, RIP): 0 refused, 1 look again, 2 the answer is in Control. type: 16 read, 17 write, 18
# fetch.
#
# A frame of code may be written only through a translation that executes too, whose stores Unicorn checks one by one.
    .balign 16, 0xcc
on_fill:
    dec qword ptr [r8 + FILLS]
    js 9f
6:  call walk
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
9:  push rbx
    push rbp
    push r12
    push r13
    push rdi
    mov rbx, r8
    mov rbp, rsi
    mov r12d, edx
    mov r13, rcx
    mov esi, RIP_NUMBER
    lea rdx, [rbx + FAULT_PC]
    call [rbx + READ]
    mov rdi, rbp
    mov esi, r12d
    mov rdx, [rbx + FAULT_PC]
    call [rbx + RESOLVE]
    mov r8, rbx
    mov rsi, rbp
    mov edx, r12d
    mov rcx, r13
    pop rdi
    pop r13
    pop r12
    pop rbp
    pop rbx
    cmp eax, 1
    je 6b
    jb 7f
    mov rax, [r8 + ANSWER_ADDRESS]
    mov [rcx], rax
    mov eax, [r8 + ANSWER_PERMISSIONS]
    mov [rcx + 8], eax
    mov eax, 1
7:  ret

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

    .balign 16, 0xcc
    .include "vex.s"
