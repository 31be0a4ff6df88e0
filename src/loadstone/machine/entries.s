# The loops of entry_loops.py as source. After a change: `python -m loadstone.machine.assembling entries.s` prints the
# bytes for that file; a test assembles this one and compares.
#
# Both are C functions (System V: rdi rsi rdx rcx r8). An entry's frame number is in bits 12 to 51.

    .intel_syntax noprefix

    .set WRITABLE, 2
    .set ACCESSED, 0x20
    .set DIRTY, 0x40
    .set COUNTED, 52
    .set ZERO_PAGE, 53

# long share(uint64_t *source, uint64_t *target, long count, uint32_t *references, uint32_t *written):
# copy entries to a child. The numbers of those that may be written and were go to `written`; how many they are, and
# how many resident pages there are times 2^32.
share:
    push rbx
    xor ebx, ebx                        # resident pages
    xor r9d, r9d                        # the number of the entry
    xor r11d, r11d                      # written ones
.Lshare_next:
    cmp r9, rdx
    jae .Lshared
    mov rax, [rdi + 8 * r9]
    test rax, rax
    jz .Lshare_done
    bt rax, COUNTED
    jnc .Lshare_resident
    mov r10, rax
    shl r10, 12
    shr r10, 24
    inc dword ptr [rcx + 4 * r10]
.Lshare_resident:
    bt rax, ZERO_PAGE
    jc .Lshare_written
    inc rbx
.Lshare_written:
    mov r10d, eax
    and r10d, WRITABLE | DIRTY
    cmp r10d, WRITABLE | DIRTY
    jne .Lshare_store
    mov [r8 + 4 * r11], r9d
    inc r11
.Lshare_store:
    and rax, ~WRITABLE
    mov [rdi + 8 * r9], rax
    and rax, ~ACCESSED
    mov [rsi + 8 * r9], rax
.Lshare_done:
    inc r9
    jmp .Lshare_next
.Lshared:
    shl rbx, 32
    lea rax, [rbx + r11]
    pop rbx
    ret

    .balign 16, 0xcc
# long drop(uint64_t *entries, long count, uint32_t *references, uint32_t *gone):
# let go of what entries refer to. The frames that nothing refers to any more go to `gone`; how many they are.
drop:
    xor eax, eax                        # frames that are gone
    xor r9d, r9d                        # the number of the entry
.Ldrop_next:
    cmp r9, rsi
    jae .Ldropped
    mov r10, [rdi + 8 * r9]
    bt r10, COUNTED
    jnc .Ldrop_done
    shl r10, 12
    shr r10, 24
    dec dword ptr [rdx + 4 * r10]
    jnz .Ldrop_done
    mov [rcx + 4 * rax], r10d
    inc rax
.Ldrop_done:
    inc r9
    jmp .Ldrop_next
.Ldropped:
    ret
