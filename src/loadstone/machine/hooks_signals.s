# Changes of signal masks and actions that the hook for SYSCALL makes by itself (unicorn_signals.py): a part of hooks.s.

    .set SYSCALL_LENGTH, 2
    .set AHEAD, 0x400                   # of a page table's entry
    .set TO_READ, PRESENT | ACCESSED    # what a page's entry says where the kernel need not look at it first
    .set TO_WRITE, TO_READ | WRITABLE | DIRTY
    .set SIGSET_SIZE, 8
    .set SIGKILL, 9
    .set SIGSTOP, 19
    .set SIGNALS, 64
    .set ACTION_SIZE, 32                # handler, flags, restorer, mask
    .set SA_KNOWN, 0xdc000807           # the flags that there are
    .set UNBLOCKABLE, 0x40100           # signals: SIGKILL and SIGSTOP

# change_signals: what on_syscall goes on with for either call; rbx = control, and the caller's rbx is on the stack. It
# returns from the hook, or goes back to have the kernel make the call, with nothing changed.
change_signals:
    push rbp
    push r12
    mov rdi, [rbx + UC]
    mov rsi, [rbx + CALL_NUMBERS]
    mov rdx, [rbx + CALL_POINTERS]
    mov ecx, CALL_REGISTERS
    call [rbx + READ_BATCH]
    test dword ptr [rbx + REGISTERS + 64], TRAP_FLAG
    jnz not_here
    cmp qword ptr [rbx + REGISTERS + 32], SIGSET_SIZE
    jne not_here
    mov r8, rbx
    mov edi, [rbx + REGISTERS + 8]
    mov rsi, [rbx + REGISTERS + 16]
    mov rbp, [rbx + REGISTERS + 24]
    cmp qword ptr [rbx + REGISTERS], SIGACTION
    je change_action

    cmp edi, 2                          # rt_sigprocmask(how, set, old set, size)
    ja not_here
    mov r12, [rbx + BLOCKED]
    test rsi, rsi
    jz 3f
    mov ecx, SIGSET_SIZE
    mov edx, TO_READ
    call operand
    jnz not_here
    mov rax, [rax]
    dec edi
    js 1f
    jnz 2f
    not rax                             # SIG_UNBLOCK
    and r12, rax
    jmp 3f
1:  or r12, rax                         # SIG_BLOCK
    jmp 3f
2:  mov r12, rax                        # SIG_SETMASK
3:  mov rsi, rbp
    test rsi, rsi
    jz 4f
    mov ecx, SIGSET_SIZE
    mov edx, TO_WRITE
    call operand
    jnz not_here
    mov rdx, [rbx + BLOCKED]
    mov [rax], rdx
4:  and r12, ~UNBLOCKABLE
    mov [rbx + BLOCKED], r12
    inc qword ptr [rbx + MASK_CALLS]
    jmp made

change_action:                          # rt_sigaction(signal, action, old action, size)
    cmp edi, SIGKILL
    je not_here
    cmp edi, SIGSTOP
    je not_here
    dec edi
    cmp edi, SIGNALS
    jae not_here
    imul edi, edi, ACTION_SIZE
    add rdi, [rbx + ACTIONS]
    mov r12, rsi
    test rsi, rsi
    jz 5f
    mov ecx, ACTION_SIZE
    mov edx, TO_READ
    call operand
    jnz not_here
    movups xmm0, [rax]
    movups xmm1, [rax + 16]
5:  mov rsi, rbp
    test rsi, rsi
    jz 6f
    mov ecx, ACTION_SIZE
    mov edx, TO_WRITE
    call operand
    jnz not_here
    movups xmm2, [rdi]
    movups xmm3, [rdi + 16]
    movups [rax], xmm2
    movups [rax + 16], xmm3
6:  inc qword ptr [rbx + ACTION_CALLS]
    test r12, r12
    jz made
    movups [rdi], xmm0
    movups [rdi + 16], xmm1
    mov eax, SA_KNOWN
    and [rdi + 8], rax
    and qword ptr [rdi + 24], ~UNBLOCKABLE

made:
    mov qword ptr [rbx + RESULT], 0     # RAX; RCX is where the program goes on, and R11 its flags
    mov rax, [rbx + REGISTERS + 56]
    add rax, SYSCALL_LENGTH
    mov [rbx + RESULT + 8], rax
    mov rax, [rbx + REGISTERS + 64]
    mov [rbx + RESULT + 16], rax
    mov rdi, [rbx + UC]
    mov rsi, [rbx + RESULT_NUMBERS]
    mov rdx, [rbx + RESULT_POINTERS]
    mov ecx, RESULT_REGISTERS
    call [rbx + WRITE_BATCH]
    pop r12
    pop rbp
    pop rbx
    ret
not_here:
    pop r12
    pop rbp
    jmp for_the_kernel

# operand: rsi = address, ecx = size, edx = bits that its page's entry must have, r8 = control -> ZF set and rax = host
# address, or ZF clear: it crosses a page's end, or the kernel must see to the page first. Clobbers r9, r10, r11.
operand:
    mov eax, esi
    and eax, 0xfff
    add eax, ecx
    cmp eax, 0x1000
    ja 1f
    call walk
    jnz 1f
    mov rax, [r10]
    lea r10d, [rdx + AHEAD]
    and r10d, eax
    cmp r10d, edx
    jne 1f
    and rax, r11
    mov r10, rax
    shr r10, 12
    add r10, [r8 + EXECUTED]
    cmp byte ptr [r10], 0               # a page of code
    jne 1f
    add rax, r9
    mov r10d, esi
    and r10d, 0xfff
    add rax, r10
    cmp eax, eax
1:  ret
