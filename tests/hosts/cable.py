"""A bad cable: carries Ethernet frames between two TAP devices, late, and not all of them.

    python cable.py TAP_A TAP_B DELAY_SECONDS LOSS

(``tc netem`` does the same where the kernel has it; many small kernels have not.)
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, TAP, NO_HEADER = 0x400454CA, 0x0002, 0x1000


def tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), TAP | NO_HEADER))
    return device


def carry(one: int, other: int, delay: float, loss: float) -> None:
    across = {one: other, other: one}
    chance = random.Random(0)
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for device in select.select(list(across), [], [], pause)[0]:
            frame = os.read(device, 65536)
            if chance.random() >= loss:
                number += 1
                heapq.heappush(waiting, (time.monotonic() + delay, number, across[device], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, device, frame = heapq.heappop(waiting)
            try:
                os.write(device, frame)
            except OSError:  # the far end is down: the frame is lost
                continue


if __name__ == "__main__":
    carry(tap(sys.argv[1]), tap(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
