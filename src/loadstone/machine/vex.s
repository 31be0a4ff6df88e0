# The search for VEX prefixes in a block of code, a part of hooks.s: `vex.find_vex`, for the hook that sees new blocks. One
# block in twenty has a byte that might be such a prefix, and decoding it in Python takes 15 us: 5 ms of a shell's start.

# What a table says of an opcode: whether a ModRM byte follows, which immediate does, and what kind of byte it is.
    .set MODRM, 0x01
    .set GROUP, 0x80                    # the immediate is there only for TEST: the ModRM byte's /0 and /1
    .set LONGER, 0x10                   # second table: one more byte of opcode
    .set PREFIX, 0x10                   # first table: the opcode is still to come
    .set REX, 0x20
    .set NEW, 0x40                      # VEX or EVEX

# Immediates, as numbers of `sizes`, times two. SIZED is 2 bytes with prefix 66, WIDE is too, or 8 with REX.W; ADDRESS is
# 4 with prefix 67; of the others the size is in the name.
    .set ONE, 2
    .set TWO, 4
    .set SIZED, 6
    .set WIDE, 8
    .set ADDRESS, 10
    .set THREE, 12
    .set FOUR, 14

# Prefixes seen, in edx.
    .set OPERAND_SIZE, 1
    .set ADDRESS_SIZE, 2
    .set REX_W, 8

# long find_vex(const uint8_t *code, long size): the offset of the first whole instruction with a VEX or EVEX prefix, but
# for those of BMI; -1 if there is none. `code` begins with an instruction.
find_vex:
    mov r8, rdi
    lea r11, [rdi + rsi]                # the end
    lea r9, [rip + one_byte]
.Lnext:
    mov rsi, rdi                        # the instruction
    xor edx, edx
.Lprefix:
    cmp rdi, r11
    jae .Lnone
    movzx eax, byte ptr [rdi]
    inc rdi
    movzx r10d, byte ptr [r9 + rax]
    test r10b, PREFIX
    jz .Lno_prefix
    cmp al, 0x66
    jne 1f
    or edx, OPERAND_SIZE
1:  cmp al, 0x67
    jne .Lprefix
    or edx, ADDRESS_SIZE
    jmp .Lprefix

.Lno_prefix:
    test r10b, NEW
    jnz .Lnew
    test r10b, REX
    jz .Lopcode
    and eax, REX_W
    or edx, eax
    cmp rdi, r11
    jae .Lnone
    movzx eax, byte ptr [rdi]
    inc rdi
    movzx r10d, byte ptr [r9 + rax]
.Lopcode:
    cmp al, 0x0f
    jne .Lone_byte
    cmp rdi, r11
    jae .Lnone
    movzx eax, byte ptr [rdi]
    inc rdi
    movzx r10d, byte ptr [r9 + two_byte - one_byte + rax]
    test r10b, LONGER
    jz .Lmodrm
    cmp rdi, r11
    jae .Lnone
    inc rdi
    jmp .Lmodrm
.Lone_byte:
    test r10b, GROUP
    jz .Lmodrm
    cmp rdi, r11
    jae .Lnone
    test byte ptr [rdi], 0x30
    jz .Lmodrm
    mov r10d, MODRM
.Lmodrm:
    test r10b, MODRM
    jz .Limmediate
    call after_modrm
.Limmediate:
    shr r10d, 1
    and r10d, 7
    movzx eax, byte ptr [r9 + sizes - one_byte + r10]
    cmp r10d, ADDRESS / 2
    jne 1f
    test edx, ADDRESS_SIZE
    jz 3f
    mov eax, 4
    jmp 3f
1:  lea ecx, [r10 - SIZED / 2]
    cmp ecx, WIDE / 2 - SIZED / 2
    ja 3f
    test edx, REX_W
    jnz 2f
    test edx, OPERAND_SIZE
    jz 3f
    mov eax, 2
    jmp 3f
2:  cmp r10d, WIDE / 2
    jne 3f
    mov eax, 8
3:  add rdi, rax
    cmp rdi, r11
    jbe .Lnext
.Lnone:
    mov rax, -1
    ret

# C5 x opcode; C4 xm x opcode; 62 xm x x opcode: ecx = the map, r10 = the opcode, edx = whether Unicorn runs it right.
.Lnew:
    cmp rdi, r11
    jae .Lnone
    movzx ecx, byte ptr [rdi]
    inc rdi
    cmp al, 0xc5
    jne 1f
    mov ecx, 1
    jmp 3f
1:  inc rdi
    cmp al, 0xc4
    jne 2f
    and ecx, 31
    jmp 3f
2:  inc rdi
    and ecx, 7
3:  cmp rdi, r11
    jae .Lnone
    movzx r10d, byte ptr [rdi]
    inc rdi
    xor edx, edx
    cmp al, 0xc4
    jne 6f
    cmp ecx, 3
    je 4f
    cmp ecx, 2
    jne 6f
    cmp r10b, 0xf4
    je 6f
    lea eax, [r10 - 0xf2]               # F2, F3, F5, F6, F7
    cmp eax, 5
    ja 6f
    jmp 5f
4:  cmp r10b, 0xf0
    jne 6f
5:  inc edx
6:  cmp ecx, 1
    jne 7f
    cmp r10b, 0x77                      # VZEROUPPER has no ModRM byte
    je .Lwhole
    movzx r10d, byte ptr [r9 + two_byte - one_byte + r10]
    and r10d, LONGER | FOUR
    cmp r10d, ONE
    sete r10b
    jmp 8f
7:  cmp ecx, 3
    sete r10b
8:  call after_modrm
    movzx r10d, r10b
    add rdi, r10
.Lwhole:
    cmp rdi, r11
    ja .Lnone
    test edx, edx
    jnz .Lnext
    mov rax, rsi
    sub rax, r8
    ret

# after_modrm: rdi = a ModRM byte -> behind it, its SIB byte and displacement; behind r11 where they end there. Clobbers
# rax, rcx.
after_modrm:
    cmp rdi, r11
    jae 4f
    movzx eax, byte ptr [rdi]
    inc rdi
    mov ecx, eax
    shr ecx, 6
    cmp ecx, 3
    je 3f
    and eax, 7
    cmp eax, 4
    jne 1f
    cmp rdi, r11
    jae 4f
    movzx eax, byte ptr [rdi]
    inc rdi
    and eax, 7
1:  cmp ecx, 1
    je 2f
    cmp ecx, 2
    je 5f
    cmp eax, 5
    je 5f
    ret
2:  inc rdi
3:  ret
4:  lea rdi, [r11 + 1]
    ret
5:  add rdi, 4
    ret

    .set MO, MODRM | ONE
    .set MS, MODRM | SIZED

one_byte:
    .rept 4                             # 00 to 1F: ADD, OR, ADC, SBB
    .byte MODRM, MODRM, MODRM, MODRM, ONE, SIZED, 0, 0
    .endr
    .rept 4                             # AND, SUB, XOR, CMP, and the prefixes 26, 2E, 36, 3E
    .byte MODRM, MODRM, MODRM, MODRM, ONE, SIZED, PREFIX, 0
    .endr
    .fill 16, 1, REX                    # 40
    .fill 16, 1, 0
    .byte 0, 0, NEW, MODRM, PREFIX, PREFIX, PREFIX, PREFIX, SIZED, MS, ONE, MO, 0, 0, 0, 0
    .fill 16, 1, ONE                    # 70
    .byte MO, MS, 0, MO
    .fill 12, 1, MODRM
    .fill 16, 1, 0
    .byte ADDRESS, ADDRESS, ADDRESS, ADDRESS, 0, 0, 0, 0, ONE, SIZED, 0, 0, 0, 0, 0, 0     # A0
    .fill 8, 1, ONE
    .fill 8, 1, WIDE
    .byte MO, MO, TWO, 0, NEW, NEW, MO, MS, THREE, 0, TWO, 0, 0, ONE, 0, 0
    .byte MODRM, MODRM, MODRM, MODRM, 0, 0, 0, 0    # D0
    .fill 8, 1, MODRM
    .fill 8, 1, ONE
    .byte FOUR, FOUR, 0, ONE, 0, 0, 0, 0
    .byte PREFIX, 0, PREFIX, PREFIX, 0, 0, GROUP | MO, GROUP | MS, 0, 0, 0, 0, 0, 0, MODRM, MODRM

two_byte:
    .fill 5, 1, MODRM
    .byte 0, 0, 0, 0, 0, MODRM, 0, MODRM, MODRM, MODRM, MODRM
    .fill 32, 1, MODRM
    .fill 8, 1, 0                       # 30
    .byte LONGER | MODRM, MODRM, LONGER | MO, MODRM, MODRM, MODRM, MODRM, MODRM
    .fill 48, 1, MODRM
    .byte MO, MO, MO, MO, MODRM, MODRM, MODRM, 0    # 70
    .fill 8, 1, MODRM
    .fill 16, 1, FOUR                   # 80
    .fill 16, 1, MODRM
    .byte 0, 0, 0, MODRM, MO, MODRM, MODRM, MODRM, 0, 0, 0, MODRM, MO, MODRM, MODRM, MODRM     # A0
    .fill 10, 1, MODRM                  # B0
    .byte MO, MODRM, MODRM, MODRM, MODRM, MODRM
    .byte MODRM, MODRM, MO, MODRM, MO, MO, MO, MODRM
    .fill 8, 1, 0
    .fill 48, 1, MODRM                  # D0

sizes:
    .byte 0, 1, 2, 4, 4, 8, 3, 4
