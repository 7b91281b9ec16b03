"""CRC-32C (Castagnoli) with numpy: many lanes at once, joined by the shift of the polynomial."""

import numpy as np

POLYNOMIAL = np.uint32(0x82F63B78)  # reflected
LANES = 2048


def _table():
    rows = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        rows = np.where(rows & 1, (rows >> 1) ^ POLYNOMIAL, rows >> 1)
    return rows


TABLE = _table()


def _feed(state, octets):
    return TABLE[(state ^ octets) & 0xFF] ^ (state >> 8)


def crc32c(data):
    """Checksum of bytes."""
    octets = np.frombuffer(data, np.uint8).astype(np.uint32)
    if len(octets) < 4:
        state = np.uint32(0xFFFFFFFF)
        for octet in octets:
            state = _feed(state, octet)
        return int(state) ^ 0xFFFFFFFF
    # Starting from all ones is starting from zero with the first four bytes inverted; leading zeros then change nothing.
    length = -(-len(octets) // LANES)
    lanes = np.zeros(LANES * length, np.uint32)
    lanes[-len(octets) :] = octets
    lanes[len(lanes) - len(octets) :][:4] ^= 0xFF
    state = np.zeros(LANES, np.uint32)
    for column in lanes.reshape(LANES, length).T:
        state = _feed(state, column)
    # What `length` zero bytes make of each single bit of a state.
    shifted = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(length):
        shifted = _feed(shifted, np.uint32(0))
    total = np.uint32(0)
    for lane in state:
        bits = (total >> np.arange(32, dtype=np.uint32)) & 1
        total = np.bitwise_xor.reduce(shifted[bits == 1], initial=np.uint32(0)) ^ lane
    return int(total) ^ 0xFFFFFFFF
