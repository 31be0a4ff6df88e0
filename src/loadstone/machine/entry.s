# What SYSCALL enters where reads are answered in the guest (kvm_entry.py), as source. It runs in ring 3, as the program
# does. After a change: `python -m loadstone.machine.kvm_entry` prints the bytes for that file; a test assembles this one
# and compares.
#
# On entry RCX is where the program goes on and R11 its flags; interrupts seem off, so that bit is put right. Everything
# but RAX, RCX and R11 has to be as it was when the program goes on; the stack is the program's and is not written to.

    .intel_syntax noprefix

    .set PAGES, 0x10000                 # from the entry page to the data page; the buffer follows
    .set BUFFER_PAGE, 0x1000

entry:
    cmp word ptr [rcx - 2], 0x050f      # not behind a SYSCALL: the program has jumped here
    jne jumped
    test rax, rax                       # read
    jne leave
    test r11d, 0x100                    # single-stepped
    jnz leave
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
    mov [rip + old_rcx], rcx
    mov [rip + old_rsi], rsi
    mov [rip + old_rdi], rdi
    mov [rip + old_rsp], rsp
saved:                                  # a fault from here on is the user's page: the host puts the registers back
    or r11d, 0x200
    mov rdi, rsi
    mov eax, [rip + taken]
    lea rsi, [rip + buffer]
    add rsi, rax
    mov rcx, rdx
    rep movsb
    mov rcx, [rip + old_rcx]
    mov rsi, [rip + old_rsi]
    mov rdi, [rip + old_rdi]
    mov rax, [rip + taken]              # with the number of reads above
    add rax, rdx
    add rax, [rip + one_read]
    lea rsp, [rip + stack_end]
    push r11
    popfq
    mov rsp, [rip + old_rsp]
    mov [rip + taken], rax
done:                                   # it has been read, and only RAX and RIP are still to be set
    mov rax, rdx
    jmp rcx

refuse:
    xor eax, eax
leave:
    hlt                                 # refused to ring 3, and so seen by the host
jumped:
    hlt

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
    .set stack_end, data + 128
    .set buffer, data + BUFFER_PAGE
