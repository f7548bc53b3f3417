"""Starts one reader in a process of its own; run by :mod:`vmcmc_dist.bench.start`."""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from pathlib import Path

from vmcmc_dist.data import DataConfig, ShardStream, open_manifest


def status_mib(field: str) -> float:
    """A field of /proc/self/status in MiB: VmRSS (now) or VmHWM (the most so far)."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    order = json.loads(sys.argv[1])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS
    before = status_mib("VmRSS")
    times = [time.perf_counter()]
    manifest = open_manifest(order["base"])
    times.append(time.perf_counter())
    cfg = DataConfig(source="shards", root=order["base"], cache_mb=0, streams=order["world"])
    with ShardStream(
        manifest,
        cfg,
        seed=0,
        rank=order["rank"],
        world_size=order["world"],
        local_batch=order["batch"],
    ) as stream:
        times.append(time.perf_counter())
        rows, blocks = stream.first_plan()
        times.append(time.perf_counter())
        assert len(rows) == order["batch"] and blocks
    spent = [b - a for a, b in zip(times, times[1:], strict=False)]
    print(
        json.dumps(
            {
                "open_s": spent[0],
                "stream_s": spent[1],
                "plan_s": spent[2],
                "memory_mib": status_mib("VmHWM") - before,
            }
        )
    )


if __name__ == "__main__":
    main()
