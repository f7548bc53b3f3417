"""Which network interface gloo talks over."""

from __future__ import annotations

import os

import psutil


def interface_of(address: str) -> str | None:
    """The network interface that has this IP address, e.g. ``eth0``."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            return name
    return None


def talk_over(address: str) -> None:
    """From now on gloo's groups of this process use the interface of this IP address, unless
    ``GLOO_SOCKET_IFNAME`` names one. Left to itself, gloo asks for the host's name, and that may
    be 127.0.0.1, or an interface that the other machines do not see.
    """
    interface = interface_of(address)
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
