"""How many workers fit: on machines as they are, and with all that an autoscaler may start."""

from __future__ import annotations

import math
from pathlib import Path

from vmcmc_dist.engine.ray_capacity import Growth, Node, _from_file, fits, most_workers

EACH = {"CPU": 4.0, "GPU": 1.0}


def node(cpus: float, gpus: float, head: bool = False) -> Node:
    return Node("n", "10.0.0.1", {"CPU": cpus, "GPU": gpus}, {}, head)


def test_a_worker_is_never_split_over_two_machines() -> None:
    assert fits({"CPU": 9, "GPU": 8}, EACH) == 2
    assert most_workers([node(3, 1), node(3, 1)], None, EACH) == 0
    assert most_workers([node(8, 1), node(8, 2)], None, EACH) == 3


def test_what_an_autoscaler_may_start_counts_up_to_its_limits(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "head_node_type: head\nmax_workers: 5\navailable_node_types:\n"
        "  head: {resources: {CPU: 8, GPU: 8}}\n"
        "  large: {resources: {CPU: 32, GPU: 8}, max_workers: 2}\n"
        "  small: {resources: {CPU: 4, GPU: 1}, max_workers: 10}\n"
    )
    more = _from_file(str(file))
    assert more.limit == 5 and len(more.kinds) == 2
    assert most_workers([node(8, 0, head=True)], more, EACH) == 2 * 8 + 3 * 1
    assert most_workers([node(8, 0, head=True)], Growth(), EACH) == math.inf
