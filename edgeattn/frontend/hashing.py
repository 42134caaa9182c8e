"""The hash functions by which Keras distributes values to bins.

FarmHash's 64-bit fingerprint (https://github.com/google/farmhash, ``farmhashna::Hash64``) and
SipHash-2-4 (https://www.aumasson.jp/siphash/siphash.pdf), the one with a key. All arithmetic is
modulo 2**64.
"""

_MASK = 2**64 - 1
_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F


def _word(data: bytes, start: int, size: int = 8) -> int:
    return int.from_bytes(data[start : start + size], "little")


def _rotate_right(value: int, bits: int) -> int:
    value &= _MASK
    return (value >> bits | value << 64 - bits) & _MASK


def _rotate_left(value: int, bits: int) -> int:
    return _rotate_right(value, 64 - bits)


def _shift_mix(value: int) -> int:
    value &= _MASK
    return value ^ value >> 47


def _hash_16(low: int, high: int, multiplier: int) -> int:
    a = _shift_mix((low & _MASK ^ high & _MASK) * multiplier)
    b = _shift_mix((high & _MASK ^ a) * multiplier)
    return b * multiplier & _MASK


def farmhash_64(data: bytes) -> int:
    """FarmHash's fingerprint of ``data``, an unsigned integer of 64 bits."""
    size = len(data)
    if size <= 16:
        return _farmhash_to_16(data)
    multiplier = _K2 + size * 2
    if size > 64:
        return _farmhash_long(data)
    first = _K1 if size <= 32 else _K2
    a, b = _word(data, 0) * first, _word(data, 8)
    c, d = _word(data, size - 8) * multiplier, _word(data, size - 16) * _K2
    y = _rotate_right(a + b, 43) + _rotate_right(c, 30) + d
    z = a + _rotate_right(b + _K2, 18) + c
    if size <= 32:
        return _hash_16(y, z, multiplier)
    z = _hash_16(y, z, multiplier)
    e, f = _word(data, 16) * multiplier, _word(data, 24)
    g = (y + _word(data, size - 32)) * multiplier
    h = (z + _word(data, size - 24)) * multiplier
    return _hash_16(
        _rotate_right(e + f, 43) + _rotate_right(g, 30) + h,
        e + _rotate_right(f + a, 18) + g,
        multiplier,
    )


def _farmhash_to_16(data: bytes) -> int:
    size = len(data)
    multiplier = _K2 + size * 2
    if size >= 8:
        a, b = _word(data, 0) + _K2, _word(data, size - 8)
        c = _rotate_right(b, 37) * multiplier + a
        return _hash_16(c, (_rotate_right(a, 25) + b) * multiplier, multiplier)
    if size >= 4:
        return _hash_16(size + (_word(data, 0, 4) << 3), _word(data, size - 4, 4), multiplier)
    if size == 0:
        return _K2
    y = data[0] + (data[size >> 1] << 8)
    z = size + (data[-1] << 2)
    return _shift_mix(y * _K2 ^ z * _K0) * _K2 & _MASK


def _weak_32(data: bytes, start: int, a: int, b: int) -> tuple[int, int]:
    """The weak hash of 32 bytes with two seeds."""
    w, x, y, z = (_word(data, start + 8 * index) for index in range(4))
    a += w
    b = _rotate_right(b + a + z, 21)
    c = a
    a += x + y
    return a + z & _MASK, b + _rotate_right(a, 44) + c & _MASK


def _farmhash_long(data: bytes) -> int:
    size, seed = len(data), 81
    y = seed * _K1 + 113 & _MASK
    z = _shift_mix(y * _K2 + 113) * _K2 & _MASK
    v, w = (0, 0), (0, 0)
    x = seed * _K2 + _word(data, 0) & _MASK
    blocks = (size - 1) // 64
    for start in [*range(0, 64 * blocks, 64), size - 64]:
        last = start == size - 64
        multiplier, nine = (_K1 + ((z & 0xFF) << 1), 9) if last else (_K1, 1)
        if last:
            w0 = w[0] + (size - 1 & 63)
            v0 = v[0] + w0
            v, w = (v0 & _MASK, v[1]), (w0 + v0 & _MASK, w[1])
        x = _rotate_right(x + y + v[0] + _word(data, start + 8), 37) * multiplier
        y = _rotate_right(y + v[1] + _word(data, start + 48), 42) * multiplier
        x = x & _MASK ^ w[1] * nine & _MASK
        y = y + v[0] * nine + _word(data, start + 40) & _MASK
        z = _rotate_right(z + w[0], 33) * multiplier & _MASK
        v = _weak_32(data, start, v[1] * multiplier, x + w[0])
        w = _weak_32(data, start + 32, z + w[1], y + _word(data, start + 16))
        z, x = x, z
    return _hash_16(
        _hash_16(v[0], w[0], multiplier) + _shift_mix(y) * _K0 + z,
        _hash_16(v[1], w[1], multiplier) + x,
        multiplier,
    )


def siphash_64(data: bytes, key: tuple[int, int]) -> int:
    """SipHash-2-4 of ``data`` with a key of two integers of 64 bits."""
    first, second = (part & _MASK for part in key)
    state = (
        first ^ 0x736F6D6570736575,
        second ^ 0x646F72616E646F6D,
        first ^ 0x6C7967656E657261,
        second ^ 0x7465646279746573,
    )
    whole = len(data) // 8 * 8
    words = [_word(data, start) for start in range(0, whole, 8)]
    words.append(_word(data, whole) | (len(data) & 0xFF) << 56)
    for word in words:
        a, b, c, d = state
        state = _sip_rounds((a, b, c, d ^ word), 2)
        state = (state[0] ^ word, *state[1:])
    a, b, c, d = state
    a, b, c, d = _sip_rounds((a, b, c ^ 0xFF, d), 4)
    return a ^ b ^ c ^ d


def _sip_rounds(state: tuple[int, int, int, int], rounds: int) -> tuple[int, int, int, int]:
    a, b, c, d = state
    for _ in range(rounds):
        a = a + b & _MASK
        b = _rotate_left(b, 13) ^ a
        a = _rotate_left(a, 32)
        c = c + d & _MASK
        d = _rotate_left(d, 16) ^ c
        a = a + d & _MASK
        d = _rotate_left(d, 21) ^ a
        c = c + b & _MASK
        b = _rotate_left(b, 17) ^ c
        c = _rotate_left(c, 32)
    return a, b, c, d
