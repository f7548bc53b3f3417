"""gloo's interface is that of the node's address (its use: the jobs of tests/hosts, whose host
names lead nowhere)."""

from __future__ import annotations

import os

import pytest

from vmcmc_dist.engine.interface import interface_of, talk_over


def test_the_interface_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    talk_over("192.0.2.1")
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    talk_over("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_a_user_s_choice_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    talk_over("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
