# The loops of entry_loops.py as source. After a change: `python -m loadstone.machine.assembling entries.s` prints the
# bytes for that file; a test assembles this one and compares.
#
# All are C functions (System V: rdi rsi rdx rcx r8 r9). An entry's frame number is in bits 12 to 51.

    .intel_syntax noprefix

    .set WRITABLE, 2
    .set ACCESSED, 0x20
    .set DIRTY, 0x40
    .set COUNTED, 52
    .set ZERO_PAGE, 53

    .set FREE, 0                        # owners of frames
    .set ANONYMOUS, 3

    .set WORDS, 512                     # in a frame

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
# void part(uint64_t *memory, uint32_t *references, uint64_t *slots, uint64_t *targets, uint64_t *copies, long count):
# give each side of a fork a page of its own. `slots` and `targets` are the numbers of words in `memory`, of the parent's
# and the child's entries; `copies` are frames for the child.
part:
    push rbx
    push rbp
    push r12
    push r13
    mov rbx, rdi
    mov rbp, rsi
    mov r12, rdx
    mov r13, rcx
    xor edx, edx                        # the number of the page
.Lpart_next:
    cmp rdx, r9
    jae .Lparted
    mov r10, [r12 + 8 * rdx]
    mov rax, [rbx + 8 * r10]
    or rax, WRITABLE
    mov [rbx + 8 * r10], rax
    mov rsi, rax
    shl rsi, 12
    shr rsi, 24                         # the frame
    dec dword ptr [rbp + 4 * rsi]
    mov rdi, [r8 + 8 * rdx]
    mov r10, rsi
    xor r10, rdi
    shl r10, 12
    xor rax, r10                        # the same entry for the copy
    and rax, ~ACCESSED
    mov r10, [r13 + 8 * rdx]
    mov [rbx + 8 * r10], rax
    shl rsi, 12
    add rsi, rbx
    shl rdi, 12
    add rdi, rbx
    mov ecx, WORDS
    rep movsq
    inc rdx
    jmp .Lpart_next
.Lparted:
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .balign 16, 0xcc
# long drop(uint64_t *entries, long count, uint32_t *references, uint8_t *owners, uint8_t *executed, uint32_t *gone):
# let go of what entries refer to. Of the frames that nothing refers to any more, those of anonymous memory that hold no
# code are free and go to the front of `gone`, a frame's worth of numbers; the others to its end, backwards. How many the
# former are, and the latter times 2^32.
drop:
    push rbx
    push rbp
    xor eax, eax                        # free ones
    mov ebp, WORDS                      # where the last of the others is
    xor ebx, ebx                        # the number of the entry
.Ldrop_next:
    cmp rbx, rsi
    jae .Ldropped
    mov r10, [rdi + 8 * rbx]
    inc rbx
    bt r10, COUNTED
    jnc .Ldrop_next
    shl r10, 12
    shr r10, 24
    dec dword ptr [rdx + 4 * r10]
    jnz .Ldrop_next
    cmp byte ptr [rcx + r10], ANONYMOUS
    jne .Ldrop_other
    cmp byte ptr [r8 + r10], 0
    jne .Ldrop_other
    mov byte ptr [rcx + r10], FREE
    mov [r9 + 4 * rax], r10d
    inc rax
    jmp .Ldrop_next
.Ldrop_other:
    dec rbp
    mov [r9 + 4 * rbp], r10d
    jmp .Ldrop_next
.Ldropped:
    mov ecx, WORDS
    sub ecx, ebp
    shl rcx, 32
    or rax, rcx
    pop rbp
    pop rbx
    ret
