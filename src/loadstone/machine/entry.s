# What SYSCALL enters where it stays in ring 3 (kvm_entry.py), as source. It runs there, as the program does. After a
# change: `python -m loadstone.machine.assembling entry.s` prints the bytes for that file; a test assembles this one and
# compares.
#
# On entry RCX is where the program goes on and R11 its flags; interrupts seem off, so that bit is put right. Everything
# but RAX, RCX and R11 has to be as it was when the program goes on; the stack is the program's and is not written to.
# A call is either answered, by one store that says so and what only touches RAX after it, or made by the host.

    .intel_syntax noprefix

    .set PAGES, 0x1000                  # from the entry's page to the data page; the buffer follows
    .set DOOR_PAGE, 0x1f0000            # and to the page that is the way out
    .set BUFFER_PAGE, 0x1000
    .set SIGACTION, 13
    .set SIGPROCMASK, 14
    .set SIGSET_SIZE, 8
    .set SIGKILL, 9
    .set SIGSTOP, 19
    .set SIGNALS, 64
    .set ACTION_SIZE_SHIFT, 5           # handler, flags, restorer, mask
    .set SA_KNOWN, 0xdc000807           # the flags that there are
    .set ARCH_PRCTL, 158
    .set CALLS, 336                     # numbers below it are in the table of foreseen ones
    .set ROW_SIZE_SHIFT, 6              # two masks with the values of what they leave of RDI and RSI, the answer
    .set MOST_MADE, 8
    .set NOTE_SIZE_SHIFT, 5             # number, first and second argument
    .set TRAP_FLAG, 0x100
    .set INTERRUPTS_ON, 0x200

# What answers need of the program's registers, but for RAX and R11, goes to the data page.
.macro save_registers
    mov [rip + old_rcx], rcx
    mov [rip + old_rsi], rsi
    mov [rip + old_rdi], rdi
    mov [rip + old_rsp], rsp
.endm

# And comes back, but for RSP.
.macro restore_registers
    mov rcx, [rip + old_rcx]
    mov rsi, [rip + old_rsi]
    mov rdi, [rip + old_rdi]
.endm

# The flags, from R11, by way of a stack that is not the program's.
.macro restore_flags
    lea rsp, [rip + stack_end]
    push r11
    popfq
    mov rsp, [rip + old_rsp]
.endm

# Changes of the signal mask and of actions: not while the kernel makes them, nor with a size or addresses it would refuse.
.macro check_change
    cmp byte ptr [rip + signals_open], 0
    je leave
    cmp r10, SIGSET_SIZE
    jne leave
    cmp rsi, [rip + user_end]
    ja leave
    cmp rdx, [rip + user_end]
    ja leave
.endm

entry:
    cmp word ptr [rcx - 2], 0x050f      # not behind a SYSCALL: the program has jumped here
    jne jumped
    test r11d, TRAP_FLAG                # single-stepped
    jnz leave
    cmp rax, SIGPROCMASK
    je mask
    cmp rax, SIGACTION
    je action
    test rax, rax                       # read
    jne foreseen

    cmp edi, [rip + descriptor]
    jne leave
measure:                                # RAX is not the number any more, but that is 0
    mov eax, [rip + end]
    sub eax, [rip + taken]
    cmp rdx, rax
    ja refuse
    test rdx, rdx
    jz refuse
    mov rax, rsi
    add rax, rdx
    jc refuse
    cmp rax, [rip + user_end]
    ja refuse
    save_registers
saved:                                  # a fault from here on is the user's page: the host puts the registers back
    or r11d, INTERRUPTS_ON
    mov rdi, rsi
    mov eax, [rip + taken]
    lea rsi, [rip + buffer]
    add rsi, rax
    mov rcx, rdx
    rep movsb
    restore_registers
    mov rax, [rip + taken]              # with the number of reads above
    add rax, rdx
    add rax, [rip + one_read]
    restore_flags
    mov [rip + taken], rax
done:                                   # it has been read, and only RAX and RIP are still to be set
    mov rax, rdx
    jmp rcx

mask:                                   # rt_sigprocmask(how, set, old set, size)
    check_change
    cmp edi, 2
    ja leave
    save_registers
mask_saved:                             # as above, and RAX
    or r11d, INTERRUPTS_ON
    mov rcx, [rip + blocked]
    test rsi, rsi
    jz query
    mov rax, [rsi]
    dec edi
    js block
    jnz set
    not rax                             # SIG_UNBLOCK
    and rax, rcx
    jmp set
query:
    mov rax, rcx
    jmp set
block:
    or rax, rcx
set:
    and rax, [rip + blockable]
    test rdx, rdx
    jz changed
    mov [rdx], rcx
changed:
    restore_registers
    inc qword ptr [rip + mask_calls]
mask_counted:                           # and the host counts it out again
    restore_flags
    mov [rip + blocked], rax
mask_done:                              # it is the mask now, and only RAX and RIP are still to be set
    mov eax, 0
    jmp rcx

action:                                 # rt_sigaction(signal, action, old action, size)
    check_change
    cmp edi, 1
    jb leave
    cmp edi, SIGNALS
    ja leave
    cmp edi, SIGKILL
    je leave
    cmp edi, SIGSTOP
    je leave
    save_registers
action_saved:                           # as above
    or r11d, INTERRUPTS_ON
    test rsi, rsi
    jz given_none
    mov rax, [rsi]
    mov [rip + given], rax
    mov rax, [rsi + 8]
    mov ecx, SA_KNOWN
    and rax, rcx
    mov [rip + given + 8], rax
    mov rax, [rsi + 16]
    mov [rip + given + 16], rax
    mov rax, [rsi + 24]
    and rax, [rip + blockable]
    mov [rip + given + 24], rax
given_none:
    lea ecx, [rdi - 1]
    mov edi, ecx
    shl edi, ACTION_SIZE_SHIFT
    lea rax, [rip + actions]
    add rdi, rax
    test rdx, rdx
    jz wanted_none
    .irp word, 0, 8, 16, 24
    mov rax, [rdi + \word]
    mov [rdx + \word], rax
    .endr
wanted_none:
    inc qword ptr [rip + action_calls]
action_counted:                         # and the host counts it out again, and makes the table anew
    test rsi, rsi
    jz action_done
    .irp word, 0, 8, 16, 24
    mov rax, [rip + given + \word]
    mov [rdi + \word], rax
    .endr
    bts [rip + actions_changed], rcx
action_done:                            # it is the action now: the host puts the registers back, and RAX is 0
    restore_registers
    restore_flags
    mov eax, 0
    jmp rcx

foreseen:                               # a call whose answer the kernel knows beforehand (kvm_foreseen.py); once
    cmp rax, CALLS
    jae leave
    mov [rip + old_rax], rax
    mov [rip + old_r11], r11
    save_registers
foreseen_saved:                         # as above, and RAX and R11
    lea rcx, [rip + rows_of]
    movzx edi, byte ptr [rcx + rax]
    test edi, edi
    jz unforeseen
    mov byte ptr [rcx + rax], 0
    shl edi, ROW_SIZE_SHIFT
    lea rcx, [rip + rows]
    add rdi, rcx
    mov rcx, [rip + old_rdi]
    and rcx, [rdi]
    cmp rcx, [rdi + 8]
    jne unforeseen
    mov rcx, rsi
    and rcx, [rdi + 16]
    cmp rcx, [rdi + 24]
    jne unforeseen
    cmp eax, ARCH_PRCTL                 # to set FS: the one that does something itself
    jne note
    cmp rsi, [rip + user_end]
    jae unforeseen
    wrfsbase rsi
note:
    mov ecx, [rip + made]
    cmp ecx, MOST_MADE
    jae unforeseen
    mov eax, ecx
    shl ecx, NOTE_SIZE_SHIFT
    lea r11, [rip + notes]
    add rcx, r11
    mov r11, [rip + old_rax]
    mov [rcx], r11
    mov r11, [rip + old_rdi]
    mov [rcx + 8], r11
    mov [rcx + 16], rsi
    mov r11, [rdi + 32]
    mov [rip + answer], r11
    inc eax
    mov rcx, [rip + old_rcx]
    mov rdi, [rip + old_rdi]
    mov r11, [rip + old_r11]
    or r11d, INTERRUPTS_ON
    restore_flags
    mov [rip + made], rax
foreseen_done:                          # it is answered now, and only RAX and RIP are still to be set
    mov rax, [rip + answer]
    jmp rcx
unforeseen:
    mov rax, [rip + old_rax]
    mov rcx, [rip + old_rcx]
    mov rdi, [rip + old_rdi]
    mov r11, [rip + old_r11]
    jmp leave

refuse:
    xor eax, eax
leave:
    mov [rip + door], al                # there is no memory behind that page: the host is asked to carry the store out
left:
    hlt                                 # (that far it does not come)
jumped:
    hlt                                 # refused to ring 3, and so seen by the host

    .set door, entry + DOOR_PAGE
    .set data, entry + PAGES
    .set descriptor, data
    .set end, data + 8
    .set taken, data + 16
    .set one_read, data + 24
    .set user_end, data + 32
    .set old_rcx, data + 40
    .set old_rsi, data + 48
    .set old_rdi, data + 56
    .set old_rsp, data + 64
    .set signals_open, data + 72
    .set blocked, data + 80
    .set blockable, data + 88
    .set mask_calls, data + 96
    .set action_calls, data + 104
    .set actions_changed, data + 112
    .set stack_end, data + 128
    .set given, data + 128
    .set old_rax, data + 160
    .set old_r11, data + 168
    .set answer, data + 176
    .set made, data + 184
    .set rows, data + 128               # that of number 1, the first, is behind the words above
    .set notes, data + 704
    .set actions, data + 1024
    .set rows_of, data + 3072           # a byte for each number: which row says more; 0: none
    .set buffer, data + BUFFER_PAGE
