"""The floating-point part of a signal frame (arch/x86/kernel/fpu/signal.c).

On a CPU without XSAVE it is the FXSAVE image, 512 bytes; with it, the XSAVE image in the uncompacted format with the
components that the task may use, and a closing word:

    offset    0  FXSAVE image
            464  struct _fpx_sw_bytes: FP_XSTATE_MAGIC1, extended_size, xfeatures, xstate_size; also without XSAVE
            512  XSTATE_BV, XCOMP_BV (0), 48 reserved bytes (0)
            576  components, each at its own offset
     size of it  FP_XSTATE_MAGIC2
"""

from __future__ import annotations

from errno import EINVAL
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.machine.core import FXSAVE_SIZE, X87_SSE
from loadstone.memory.user import copy_in

if TYPE_CHECKING:
    from loadstone.machine.core import Context
    from loadstone.memory.address_space import AddressSpace

MAGIC1, MAGIC2, MAGIC2_SIZE = 0x46505853, 0x46505845, 4
_HEADER_SIZE = 64
_SOFTWARE_OFFSET = 464
_SOFTWARE_BYTES = Struct("<IIQI28x")
_SOFTWARE = Struct("<IIQI")
_XSTATE_BV = Struct("<Q")
_MXCSR_RESERVED = 0xFFFF_0000
RESET = (b"\x7f\x03".ljust(24, b"\0") + b"\x80\x1f").ljust(FXSAVE_SIZE, b"\0")


def has_xsave(context: Context) -> bool:
    """Whether the task's CPU has more state than FXSAVE knows."""
    return context.extended_size > FXSAVE_SIZE


def size(context: Context) -> int:
    """Bytes of the whole part (xstate_sigframe_size)."""
    return context.extended_size + MAGIC2_SIZE if has_xsave(context) else FXSAVE_SIZE


def save(context: Context) -> bytes:
    """What goes into the frame (copy_fpstate_to_sigframe)."""
    length = context.extended_size
    image = bytearray(context.save_extended())
    software = _SOFTWARE_BYTES.pack(MAGIC1, length + MAGIC2_SIZE, context.extended_features, length)
    image[_SOFTWARE_OFFSET:FXSAVE_SIZE] = software
    if has_xsave(context):
        (present,) = _XSTATE_BV.unpack_from(image, FXSAVE_SIZE)
        _XSTATE_BV.pack_into(image, FXSAVE_SIZE, present | X87_SSE)
        image += MAGIC2.to_bytes(MAGIC2_SIZE, "little")
    return bytes(image)


def load(context: Context, space: AddressSpace, address: int) -> None:
    """Take the state out of a frame (fpu__restore_sig). LinuxError when it cannot be read or is not valid."""
    if not address:
        context.load_fpu(RESET)
        return
    image = _read(space, address, FXSAVE_SIZE)
    if int.from_bytes(image[24:28], "little") & _MXCSR_RESERVED:
        raise LinuxError(EINVAL, "the saved floating-point state is not valid")
    features = X87_SSE
    if has_xsave(context):
        length, features = _extent(context, space, address, image)
        if length > FXSAVE_SIZE:
            image = _read(space, address, length)
            _load_extended(context, image, features)
            return
    context.load_fpu(image)


def _extent(context: Context, space: AddressSpace, address: int, image: bytes) -> tuple[int, int]:
    """(xstate_size, xfeatures) as the frame says, else those of FXSAVE (check_xstate_in_sigframe)."""
    magic, extended, features, length = _SOFTWARE.unpack_from(image, _SOFTWARE_OFFSET)
    if magic != MAGIC1 or not FXSAVE_SIZE + _HEADER_SIZE <= length <= min(context.extended_size, extended):
        return FXSAVE_SIZE, X87_SSE
    if _read(space, address + length, MAGIC2_SIZE) != MAGIC2.to_bytes(MAGIC2_SIZE, "little"):
        return FXSAVE_SIZE, X87_SSE
    return length, features


def _load_extended(context: Context, image: bytes, features: int) -> None:
    """XRSTOR: what the frame leaves out becomes initial; a header that is not valid would be a general protection."""
    (present,) = _XSTATE_BV.unpack_from(image, FXSAVE_SIZE)
    if present & ~context.extended_features or any(image[FXSAVE_SIZE + 8 : FXSAVE_SIZE + _HEADER_SIZE]):
        raise LinuxError(EINVAL, "the header of the saved extended state is not valid")
    restored = bytearray(image)
    _XSTATE_BV.pack_into(restored, FXSAVE_SIZE, present & features)
    context.load_extended(bytes(restored))


def _read(space: AddressSpace, address: int, length: int) -> bytes:
    data = copy_in(space, address, length)
    if len(data) < length:
        raise LinuxError(EINVAL, "the saved floating-point state cannot be read")
    return data
