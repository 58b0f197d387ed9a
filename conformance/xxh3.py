"""XXH3_128bits with seed 0, in plain Python: slow, and enough for the digests of small checkpoints.

Follows the XXH3 algorithm description (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md).
"""

from __future__ import annotations

import struct

_M32, _M64 = (1 << 32) - 1, (1 << 64) - 1
_P32_1, _P32_2, _P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_P64_1, _P64_2, _P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P64_4, _P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8"
    "fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb17"
    "0ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_STRIPE, _STRIPES = 64, 16  # bytes of a stripe, stripes of a block


def digest(data: bytes) -> bytes:
    """The 16 canonical (big-endian) bytes."""
    length = len(data)
    if length <= 16:
        low, high = _short(data, length)
    elif length <= 240:
        low, high = _medium(data, length)
    else:
        low, high = _long(data, length)
    return struct.pack(">QQ", high & _M64, low & _M64)


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _key(low: int, high: int) -> int:
    return _u64(_SECRET, low) ^ _u64(_SECRET, high)


def _fold(one: int, other: int) -> int:
    product = one * other
    return (product & _M64) ^ (product >> 64)


def _avalanche(value: int) -> int:
    value = (value & _M64) ^ ((value & _M64) >> 37)
    value = value * 0x165667919E3779F9 & _M64
    return value ^ (value >> 32)


def _avalanche64(value: int) -> int:
    value = (value ^ (value >> 33)) * _P64_2 & _M64
    value = (value ^ (value >> 29)) * _P64_3 & _M64
    return value ^ (value >> 32)


def _short(data: bytes, length: int) -> tuple[int, int]:
    if length == 0:
        return _avalanche64(_key(64, 72)), _avalanche64(_key(80, 88))
    if length <= 3:
        low = data[0] << 16 | data[length >> 1] << 24 | data[-1] | length << 8
        swapped = int.from_bytes(low.to_bytes(4, "little"), "big")
        high = (swapped << 13 | swapped >> 19) & _M32
        low ^= _u32(_SECRET, 0) ^ _u32(_SECRET, 4)
        return _avalanche64(low), _avalanche64(high ^ _u32(_SECRET, 8) ^ _u32(_SECRET, 12))
    if length <= 8:
        keyed = (_u32(data, 0) + (_u32(data, length - 4) << 32)) ^ _key(16, 24)
        product = keyed * (_P64_1 + (length << 2))
        low, high = product & _M64, product >> 64
        high = (high + (low << 1)) & _M64
        low ^= high >> 3
        low = (low ^ (low >> 35)) * 0x9FB21C651E98DF25 & _M64
        return low ^ (low >> 28), _avalanche(high)
    low, high = _u64(data, 0), _u64(data, length - 8)
    product = (low ^ high ^ _key(32, 40)) * _P64_1
    high ^= _key(48, 56)
    first = ((product & _M64) + ((length - 1) << 54)) & _M64
    second = ((product >> 64) + high + (high & _M32) * (_P32_2 - 1)) & _M64
    first ^= int.from_bytes(second.to_bytes(8, "little"), "big")
    product = first * _P64_2
    return _avalanche(product & _M64), _avalanche((product >> 64) + second * _P64_2)


def _mix(data: bytes, at: int, secret: int) -> int:
    return _fold(_u64(data, at) ^ _u64(_SECRET, secret), _u64(data, at + 8) ^ _u64(_SECRET, secret + 8))


def _medium(data: bytes, length: int) -> tuple[int, int]:
    low, high = length * _P64_1 & _M64, 0

    def mix(one: int, other: int, secret: int) -> None:
        nonlocal low, high
        low = (low + _mix(data, one, secret) & _M64) ^ (_u64(data, other) + _u64(data, other + 8) & _M64)
        high = (high + _mix(data, other, secret + 16) & _M64) ^ (_u64(data, one) + _u64(data, one + 8) & _M64)

    if length <= 128:
        for step in reversed(range((length - 1) // 32 + 1)):
            mix(16 * step, length - 16 * (step + 1), 32 * step)
    else:
        for at in range(0, 128, 32):
            mix(at, at + 16, at)
        low, high = _avalanche(low), _avalanche(high)
        for at in range(128, length - 31, 32):
            mix(at, at + 16, 3 + at - 128)
        mix(length - 16, length - 32, 103)
    return _avalanche(low + high), -_avalanche(low * _P64_1 + high * _P64_4 + length * _P64_2)


def _long(data: bytes, length: int) -> tuple[int, int]:
    acc = [_P32_3, _P64_1, _P64_2, _P64_3, _P64_4, _P32_2, _P64_5, _P32_1]

    def accumulate(at: int, secret: int) -> None:
        lanes = struct.unpack_from("<8Q", data, at)
        keys = struct.unpack_from("<8Q", _SECRET, secret)
        for i in range(8):
            key = lanes[i] ^ keys[i]
            acc[i ^ 1] = (acc[i ^ 1] + lanes[i]) & _M64
            acc[i] = (acc[i] + (key & _M32) * (key >> 32)) & _M64

    blocks, rest = divmod(length - 1, _STRIPE * _STRIPES)
    for block in range(blocks):
        for stripe in range(_STRIPES):
            accumulate((block * _STRIPES + stripe) * _STRIPE, 8 * stripe)
        for i, key in enumerate(struct.unpack_from("<8Q", _SECRET, 128)):
            acc[i] = (acc[i] ^ (acc[i] >> 47) ^ key) * _P32_1 & _M64
    for stripe in range(rest // _STRIPE):
        accumulate((blocks * _STRIPES + stripe) * _STRIPE, 8 * stripe)
    accumulate(length - _STRIPE, 121)

    def merge(secret: int, start: int) -> int:
        keys = struct.unpack_from("<8Q", _SECRET, secret)
        return _avalanche(start + sum(_fold(acc[i] ^ keys[i], acc[i + 1] ^ keys[i + 1]) for i in range(0, 8, 2)))

    return merge(11, length * _P64_1), merge(117, ~(length * _P64_2))
