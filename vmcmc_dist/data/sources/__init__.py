"""Raw data sets by name. A new one is a class with the members of :class:`Source` and a line here.

class Flowers:                                # sources/flowers.py
    def __init__(self, cfg, root): ...
OPENERS["flowers"] = Flowers
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.sources.arrays import Arrays
from vmcmc_dist.data.sources.base import Raw, Source
from vmcmc_dist.data.sources.celeba import CelebA
from vmcmc_dist.data.sources.cifar10 import Cifar10
from vmcmc_dist.data.sources.face_folders import FFHQ, CelebAHQ
from vmcmc_dist.data.sources.folder import Folder
from vmcmc_dist.data.sources.hugging_face import HuggingFace
from vmcmc_dist.data.sources.idx import FashionMnist, Mnist
from vmcmc_dist.data.sources.imagenet import ImageNet
from vmcmc_dist.data.sources.lsun import LSUN
from vmcmc_dist.data.sources.pairs import Pairs
from vmcmc_dist.data.sources.web_dataset import WebDataset

__all__ = ["BY_NAME", "OPENERS", "Raw", "Source"]

OPENERS: dict[str, Callable[[DataConfig, Path], Source]] = {
    "celeba": CelebA,
    "faces": CelebA,
    "celeba_hq": CelebAHQ,
    "ffhq": FFHQ,
    "imagenet": ImageNet,
    "lsun": LSUN,
    "cifar10": Cifar10,
    "mnist": Mnist,
    "fashion_mnist": FashionMnist,
    "folder": Folder,
    "arrays": Arrays,
    "pairs": Pairs,
    "webdataset": WebDataset,
    "huggingface": HuggingFace,
}

BY_NAME = ("faces", "huggingface")
"""Sources whose root may be a name instead of files: each machine gets them by itself."""
