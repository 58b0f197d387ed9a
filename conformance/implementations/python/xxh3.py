"""XXH3_128bits with seed 0, in its canonical form.

Words are little-endian u64, arithmetic is modulo 2⁶⁴ (`& M64`). Where the algorithm takes its secret at byte `8 * i`,
that is `WORDS[i]`; `secret(at)` is for the few odd places.
"""

from operator import xor
from struct import pack, unpack, unpack_from

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
MIX_1, MIX_2 = 0x165667919E3779F9, 0x9FB21C651E98DF25

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
WORDS = unpack("<24Q", SECRET)

STRIPE = 64  # bytes: eight words, one for each accumulator
BLOCK = 16 * STRIPE  # stripe n of a block is keyed by the secret's words n to n + 7
BLOCK_KEY = [WORDS[stripe + lane] for stripe in range(16) for lane in range(8)]


def xxh3_128(data: bytes) -> bytes:
    """The 16 bytes of the digest, high half first."""
    size = len(data)
    if size > 240:
        low, high = _long(data)
    elif size > 16:
        low, high = _medium(data)
    elif size > 8:
        low, high = _9_to_16(data)
    elif size > 3:
        low, high = _4_to_8(data)
    elif size > 0:
        low, high = _1_to_3(data)
    else:
        low, high = _avalanche_64(WORDS[8] ^ WORDS[9]), _avalanche_64(WORDS[10] ^ WORDS[11])
    return pack(">2Q", high, low)


def _1_to_3(data: bytes) -> tuple[int, int]:
    size = len(data)
    low = data[size - 1] | size << 8 | data[0] << 16 | data[size >> 1] << 24
    swapped = int.from_bytes(low.to_bytes(4, "little"), "big")
    high = (swapped << 13 | swapped >> 19) & M32
    a, b, c, d = unpack_from("<4I", SECRET)
    return _avalanche_64(low ^ a ^ b), _avalanche_64(high ^ c ^ d)


def _4_to_8(data: bytes) -> tuple[int, int]:
    (first,), (last,) = unpack_from("<I", data), unpack_from("<I", data, len(data) - 4)
    product = ((first | last << 32) ^ WORDS[2] ^ WORDS[3]) * (P64_1 + 4 * len(data))
    low, high = product & M64, product >> 64
    high = (high + 2 * low) & M64
    low ^= high >> 3
    low = (low ^ low >> 35) * MIX_2 & M64
    return low ^ low >> 28, _avalanche(high)


def _9_to_16(data: bytes) -> tuple[int, int]:
    first, last = _word(data, 0), _word(data, len(data) - 8)
    product = (first ^ last ^ WORDS[4] ^ WORDS[5]) * P64_1
    low = ((product & M64) + (len(data) - 1 << 54)) & M64
    last ^= WORDS[6] ^ WORDS[7]
    high = ((product >> 64) + last + (last & M32) * (P32_2 - 1)) & M64
    low ^= int.from_bytes(high.to_bytes(8, "little"), "big")
    product = low * P64_2
    return _avalanche(product & M64), _avalanche((product >> 64) + high * P64_2 & M64)


def _medium(data: bytes) -> tuple[int, int]:
    """17 to 240 bytes."""
    size = len(data)
    low, high = size * P64_1 & M64, 0

    def mix(one: int, two: int, key: int) -> None:
        nonlocal low, high
        a, b, c, d = (*unpack_from("<2Q", data, one), *unpack_from("<2Q", data, two))
        low = (low + _fold((a ^ secret(key)) * (b ^ secret(key + 8))) & M64) ^ (c + d & M64)
        high = (high + _fold((c ^ secret(key + 16)) * (d ^ secret(key + 24))) & M64) ^ (a + b & M64)

    if size <= 128:
        for i in reversed(range((size - 1) // 32 + 1)):
            mix(16 * i, size - 16 * i - 16, 32 * i)
    else:
        for i in range(4):
            mix(32 * i, 32 * i + 16, 32 * i)
        low, high = _avalanche(low), _avalanche(high)
        for i in range(4, size // 32):
            mix(32 * i, 32 * i + 16, 32 * (i - 4) + 3)
        mix(size - 16, size - 32, 103)
    total = low * P64_1 + high * P64_4 + size * P64_2
    return _avalanche(low + high & M64), -_avalanche(total & M64) & M64


def _long(data: bytes) -> tuple[int, int]:
    """More than 240 bytes: eight accumulators over blocks of 16 stripes; the last stripe ends with the data."""
    size = len(data)
    sums = [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1]
    for start in range(0, size - 1, BLOCK):
        stripes = min(16, (size - 1 - start) // STRIPE)
        _accumulate(sums, unpack_from(f"<{8 * stripes}Q", data, start), BLOCK_KEY)
        if start + BLOCK < size:
            for lane, value in enumerate(sums):
                sums[lane] = (value ^ value >> 47 ^ WORDS[16 + lane]) * P32_1 & M64
    _accumulate(sums, unpack_from("<8Q", data, size - STRIPE), unpack_from("<8Q", SECRET, 121))
    return _merge(sums, 11, size * P64_1), _merge(sums, 117, ~(size * P64_2))


def _accumulate(sums: list[int], words: tuple[int, ...], key: list[int] | tuple[int, ...]) -> None:
    """Add stripes: to each lane the product of its keyed words' halves, and the words of its neighbour."""
    products = [(keyed & M32) * (keyed >> 32) for keyed in map(xor, words, key)]
    for lane in range(8):
        sums[lane] = (sums[lane] + sum(products[lane::8]) + sum(words[lane ^ 1 :: 8])) & M64


def _merge(sums: list[int], at: int, start: int) -> int:
    pairs = zip(range(at, at + 64, 16), sums[::2], sums[1::2], strict=True)
    return _avalanche(start + sum(_fold((a ^ secret(key)) * (b ^ secret(key + 8))) for key, a, b in pairs) & M64)


def secret(at: int) -> int:
    return _word(SECRET, at)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _fold(product: int) -> int:
    return product & M64 ^ product >> 64


def _avalanche(value: int) -> int:
    value = (value ^ value >> 37) * MIX_1 & M64
    return value ^ value >> 32


def _avalanche_64(value: int) -> int:
    value = (value ^ value >> 33) * P64_2 & M64
    value = (value ^ value >> 29) * P64_3 & M64
    return value ^ value >> 32
