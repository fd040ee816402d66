"""Settings of an evaluation -> the pairs to verify, opened once, and their figures for any embedder."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fastface import dist
from fastface.card import Card
from fastface.data.image_sets import BytesImages, FileImages, ImageSet, ShardImages, open_images
from fastface.data.images import ImageSpec
from fastface.data.index import Index
from fastface.data.selection import ALL, Selection
from fastface.data.sources.bin import read_bin
from fastface.eval_settings import EvalConfig, EvalSet
from fastface.evaluation import Embed, OpenedSets, Result, evaluate_pairs
from fastface.metrics.folds import Pairs
from fastface.metrics.pairs import read_pairs, resolve_pairs
from fastface.metrics.sampling import sample_pairs
from fastface.predictor import module_embedder


class PairSet(NamedTuple):
    """Images and the pairs of them to compare."""

    images: ImageSet
    pairs: Pairs
    about: str
    """What it is, for reports: 'data/pairs.txt in data/lfw.tar'."""

    @property
    def title(self) -> str:
        """The same without folders, for pictures."""
        return re.sub(r"\S+/", "", self.about)


def open_pairs(settings: EvalSet, card: Card, *, seed: int = 0) -> PairSet:
    """Open what an evaluation set names; images of folders and archives are cut and resized for the model.

    Raises:
        ValueError: where a file is missing, a pair's image is not there, or pairs cannot be drawn.
    """
    if settings.bin is not None:
        encoded, same = read_bin(settings.bin)
        order = np.arange(len(encoded), dtype=np.int64)
        pairs = Pairs(order[0::2], order[1::2], same, folds_in_order(len(same)))
        return PairSet(
            BytesImages(encoded, ImageSpec(size=card.input_size), str(settings.bin)), pairs, str(settings.bin)
        )
    assert settings.images is not None
    images = images_for(card, settings.images, settings.crop, selection_of(settings))
    listed = settings.pairs
    if isinstance(listed, int) and isinstance(images, ShardImages) and (settings.images / "pairs.csv").is_file():
        listed = settings.images / "pairs.csv"  # shards made of a pair file bring their pairs along
    if isinstance(listed, Path):
        pairs = resolve_pairs(read_pairs(listed), images, images.where)
        return PairSet(images, pairs, f"{listed} in {images.where}")
    pairs = sample_pairs(images.identities, listed, seed)
    return PairSet(images, pairs, f"{len(pairs.same):,} pairs sampled from {images.where}, seed {seed}")


def selection_of(settings: EvalSet) -> Selection:
    """Return which images of a shard set an evaluation set takes: of those held out, the ones that are."""
    return Selection(settings.only, settings.without, settings.held_out, "share")


def images_for(
    card: Card, where: Path, crop: float | str = "as-trained", selection: Selection = ALL
) -> ShardImages | FileImages:
    """Open a shard set, folder or archive as a model takes its images; those of shards must be cut and of its size.

    Raises:
        ValueError: where there are none, or they are not of that kind.
    """
    cut = card.crop if crop == "as-trained" else None if crop == "none" else crop
    images = open_images(where, ImageSpec(size=card.input_size, crop=None if isinstance(cut, str) else cut), selection)
    if isinstance(cut, str) and not isinstance(images, ShardImages):
        flag = "--crop box" if cut == "box" else f"--align {cut}"
        raise ValueError(f"the model was trained on faces cut out by {cut}: give shards made with {flag}")
    if isinstance(images, ShardImages):
        check_image_size(images.index, card.input_size)
    return images


def check_image_size(index: Index, size: tuple[int, int]) -> None:
    """Raise a ValueError where a shard set's images are not of the size (width, height) that a model takes."""
    if index.image_size != size:
        width, height = size
        raise ValueError(
            f"{index.path} holds images of {index.image_size or 'several sizes'}, the model takes "
            f"{width}x{height}: make the shards with --size {width}x{height}"
        )


def folds_in_order(num_pairs: int) -> np.ndarray:
    """Cut pairs into ten blocks in file order, which is what defines the folds of a .bin file; int16 [P]."""
    num = min(10, num_pairs)
    return (np.arange(num_pairs) * num // max(num_pairs, 1)).astype(np.int16)


def evaluate_on(opened: PairSet, embed: Embed, *, batch: int, **options: Any) -> Result:
    """Embed and score a set on all processes together; the same result on every one."""
    gather = dist.gather_rows if dist.world() > 1 else None
    return evaluate_pairs(
        opened.images,
        opened.pairs,
        embed,
        batch=batch,
        rank=dist.rank(),
        world=dist.world(),
        gather=gather,
        progress=opened.about,
        **options,
    )


class Evaluators(OpenedSets[PairSet]):
    """The evaluation sets of a run that trains a network of images."""

    def __init__(self, config: EvalConfig, card: Card, device: torch.device) -> None:
        self.config, self.card, self.device = config, card, device
        super().__init__(config, lambda settings: open_pairs(settings, card, seed=config.seed))
        for name, opened in self.sets.items():
            if opened.pairs.same.all() or not opened.pairs.same.any():
                raise ValueError(f"eval.sets.{name}: {opened.about} has pairs of one kind only; it needs both")

    def run(self, network: nn.Module) -> dict[str, float]:
        """Embed and score every set with the network as it is; figures under `set/metric`."""
        embedder = module_embedder(network, self.card, self.device, origin="the network in training")
        values: dict[str, float] = {}
        for name, opened in self.sets.items():
            rules = {"centre": self.config.centre, "intervals": False}
            result = evaluate_on(opened, embedder, batch=self.config.batch_size, **rules)
            values |= {f"{name}/{key}": value for key, value in result.metrics.items()}
        # Rank 0's figures for all: a last bit that differs between unlike machines must not part their ways.
        return dist.share(values)
