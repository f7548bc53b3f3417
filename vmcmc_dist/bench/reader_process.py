"""One reader of images in a process of its own; run by :mod:`vmcmc_dist.bench.readers`.

It answers commands, a JSON object a line on stdin, by a JSON object a line on stdout. It imports
only what its reader needs, and at first: so the same file runs in the environments of others, and
what imports cost is known before anything is opened.

Every reader gives uint8 [B, C, H, W] batches of a shuffled data set without end.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Opener = Callable[[], Iterator[Any]]
"""Opens the data set and gives its batches: what counts as the time to the first batch."""


def pillow_decoder() -> Callable[[Any], Any]:
    """Pillow, as most code uses it: uint8 [H, W, 3]."""
    import io

    import numpy as np
    from PIL import Image

    return lambda data: np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def fast_decoder() -> Callable[[Any], Any]:
    """The decoder that our reader uses for JPEG, called as plainly as possible."""
    from simplejpeg import decode_jpeg

    return lambda data: decode_jpeg(data, "RGB")


DECODERS = {"pillow": pillow_decoder, "fast": fast_decoder}


def ours(config: dict[str, Any]) -> Opener:
    """Our stream as training uses it: shuffled, exact, resumable, checksums checked."""
    from vmcmc_dist.data import DataConfig, ShardStream, open_manifest

    if config["data"].startswith("s3://"):
        import s3fs  # noqa: F401  (else imported by the first read)

    settings = {"workers": config["workers"], "cache_mb": 0, **config["settings"]}

    def batches() -> Iterator[Any]:
        cfg = DataConfig(source="shards", root=config["data"], **settings)
        with ShardStream(
            open_manifest(config["data"]), cfg, seed=0, local_batch=config["batch"]
        ) as stream:
            for batch in stream:
                yield batch.x

    return batches


def memory(config: dict[str, Any]) -> Opener:
    """No reading at all: encoded bytes held in memory, decoded by ``workers`` threads."""
    from concurrent.futures import ThreadPoolExecutor

    from vmcmc_dist.data.buffers import BufferPool
    from vmcmc_dist.data.decoding import decode_into

    size, workers = config["batch"], config["workers"]
    width, height = config["size"]

    def batches() -> Iterator[Any]:
        files = [path.read_bytes() for path in sorted(Path(config["data"]).glob("*.jpg"))]
        out = BufferPool((size, height, width, 3), "uint8").array()
        pool = ThreadPoolExecutor(workers)

        def work(start: int, places: range) -> None:
            for i in places:
                decode_into(files[(start + i) % len(files)], "jpg", out[i])

        parts = [range(w, size, workers) for w in range(workers)]
        for start in itertools.count(0, size):
            if workers == 1:
                work(start, parts[0])
            else:
                list(pool.map(lambda part, start=start: work(start, part), parts))
            yield out

    return batches


def folder(config: dict[str, Any]) -> Opener:
    """A PyTorch DataLoader over a folder of files."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    decode = DECODERS[config["decoder"]]()

    class Folder(Dataset):
        def __init__(self) -> None:
            self.paths = sorted(str(path) for path in Path(config["data"]).glob("*.jpg"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, i: int) -> tuple[Any, int]:
            with open(self.paths[i], "rb") as file:
                return torch.from_numpy(decode(file.read())), i % 10

    def batches() -> Iterator[Any]:
        loader = DataLoader(
            Folder(),
            batch_size=config["batch"],
            shuffle=True,
            drop_last=True,
            num_workers=config["workers"],
            persistent_workers=True,
        )
        while True:
            for x, _ in loader:
                yield x.permute(0, 3, 1, 2)

    return batches


def webdataset(config: dict[str, Any]) -> Opener:
    """Plain WebDataset as its documentation has it: shards and a buffer of samples shuffled."""
    import torch
    import webdataset as wds

    if config["decoder"] == "fast":
        decoding: Any = wds.handle_extension("jpg", fast_decoder())
    else:
        decoding = "rgb8"

    def batches() -> Iterator[Any]:
        urls = sorted(str(path) for path in Path(config["data"]).glob("*.tar"))
        data = (
            wds.WebDataset(urls, shardshuffle=len(urls))
            .repeat()
            .shuffle(1000)
            .decode(decoding)
            .to_tuple("jpg", "cls")
            .batched(config["batch"], partial=False)
        )
        for x, _ in wds.WebLoader(data, batch_size=None, num_workers=config["workers"]):
            yield torch.as_tensor(x).permute(0, 3, 1, 2)

    return batches


def mosaic(config: dict[str, Any]) -> Opener:
    """MosaicML Streaming over MDS shards of the same bytes that lie on local disk."""
    import torch
    from streaming import StreamingDataLoader, StreamingDataset

    decode = DECODERS[config["decoder"]]()

    class Images(StreamingDataset):
        def __getitem__(self, i: Any) -> tuple[Any, int]:
            sample = super().__getitem__(i)
            return torch.from_numpy(decode(sample["jpg"])), sample["cls"]

    def batches() -> Iterator[Any]:
        data = Images(
            local=config["data"],
            shuffle=True,
            shuffle_algo="py1br",
            batch_size=config["batch"],
            num_canonical_nodes=1,
        )
        loader = StreamingDataLoader(
            data,
            batch_size=config["batch"],
            num_workers=config["workers"],
            drop_last=True,
            persistent_workers=True,
        )
        while True:
            for x, _ in loader:
                yield x.permute(0, 3, 1, 2)

    return batches


READERS = {
    "ours": ours,
    "memory": memory,
    "folder": folder,
    "webdataset": webdataset,
    "mosaic": mosaic,
}


def write_mds(source: str, out: str, shard_bytes: int) -> None:
    """MDS shards of a folder of JPEG files, their bytes as they are."""
    from streaming import MDSWriter

    columns = {"jpg": "bytes", "cls": "int"}
    with MDSWriter(out=out, columns=columns, size_limit=shard_bytes) as writer:
        for i, path in enumerate(sorted(Path(source).glob("*.jpg"))):
            writer.write({"jpg": path.read_bytes(), "cls": i % 10})


def answer(config: dict[str, Any], replies: Any) -> None:
    """Do as the lines of stdin say until they end."""

    def reply(**values: Any) -> None:
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    opener = READERS[config["reader"]](config)
    batches: Iterator[Any] = iter(())
    reply(imported=True)
    for line in sys.stdin:
        order = json.loads(line)
        start = time.perf_counter()
        if order["do"] == "open":
            batches = opener()
            x = next(batches)
            reply(seconds=time.perf_counter() - start, shape=list(x.shape), dtype=str(x.dtype))
        elif order["do"] == "read":
            images = 0
            for x in itertools.islice(batches, order["batches"]):
                images += len(x)
            reply(seconds=time.perf_counter() - start, images=images)
    close = getattr(batches, "close", None)
    if close is not None:
        close()


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    config = json.loads(sys.argv[1])
    if "write_mds" in config:
        write_mds(**config["write_mds"])
        return
    answer(config, replies)


if __name__ == "__main__":
    main()
