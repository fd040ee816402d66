"""The permutation of plans in plain integers, one position at a time: what numpy's is compared with."""

import math

from fastface.data.plan import hash_numbers

MASK = 2**64 - 1


def feistel(position: int, size: int, key: int) -> int:
    """Return the place of `position` in the permutation of range(size) that `key` chooses."""

    def scramble(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
        value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
        return (value ^ value >> 31) >> 1

    a = math.isqrt(size - 1) + 1
    b = (size + a - 1) // a
    while True:
        left, right = position // b, position % b
        for number in range(6):
            round_key = hash_numbers(key, number) >> 1
            if number % 2 == 0:
                left = (left + scramble(right + round_key)) % a
            else:
                right = (right + scramble(left + round_key)) % b
        position = left * b + right
        if position < size:
            return position
