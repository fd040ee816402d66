"""Classes -> the rows of centres this process holds, in full or a sample of them each step.

The centres are one matrix in class order, cut into as many contiguous shards as there are processes. No process ever
holds another one's rows, so a head of ten million classes fits where one of a million did; checkpoints keep the whole
matrix in class order, so that the number of processes may change (fastface/resharding.py).

With a sample rate below 1 (Partial FC, CVPR 2022, arXiv 2203.15565) a step sees the classes of its batch and, of the
others, those that a hash of (seed, step, class) chooses: the same classes on any number of processes, without
communication and without state. Their rows, and their rows of the optimizer's moments, are lent to a small parameter
`rows` for the step and put back after it. So the classes that were not chosen neither move nor cost anything, with
any optimizer, and weight decay and momentum leave them alone.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fastface import dist
from fastface.data.plan import GOLDEN, hash_numbers

BLOCK = 1024
"""Classes whose first centres come from one generator, so that a process draws little more than its own."""
STANDARD_DEVIATION = 0.01
"""Of the first centres, as InsightFace has it; only the direction of a row matters where rows are normalised."""


class ClassRows(nn.Module):
    """Hold `weight` [own classes * sub_centres, D], and the sampled `rows` [n, D] where sample_rate < 1."""

    def __init__(
        self, num_classes: int, embedding_size: int, *, sub_centres: int = 1, sample_rate: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        if num_classes < max(2, dist.world()):
            raise ValueError(
                f"{num_classes} identities are too few for a classifier on {dist.world()} process(es): it needs at "
                "least 2, and one for each process"
            )
        if sub_centres < 1:
            raise ValueError(f"sub_centres is {sub_centres}; 1 is one centre an identity, 3 is usual for noisy sets")
        if not 0.0 < sample_rate <= 1.0:
            raise ValueError(f"sample_rate is {sample_rate}; it must be in (0, 1], 1 being all identities")
        self.num_classes, self.sub_centres = num_classes, sub_centres
        self.sample_rate, self.seed = sample_rate, seed
        self.first, self.last = shard(num_classes, dist.rank(), dist.world())
        start = first_centres(self.first, self.last, sub_centres, embedding_size, seed)
        self.weight = nn.Parameter(start, requires_grad=not self.sampled)
        if self.sampled:
            self.rows = nn.Parameter(start[:1].clone())
            self.register_state_dict_post_hook(_without_rows)
            self.register_load_state_dict_pre_hook(_empty_rows)
        self.moments: dict[str, Tensor] = {}
        """The optimizer's values for all rows, where they are sampled; [own classes * sub_centres, D] each."""
        self._chosen: Tensor | None = None  # int64 [n], sorted: the step's classes, counted from `first`

    @property
    def sampled(self) -> bool:
        return self.sample_rate < 1.0

    @property
    def learning(self) -> nn.Parameter:
        """The parameter that the optimizer moves: `weight`, or the step's `rows` of it."""
        return self.rows if self.sampled else self.weight

    def choose(self, step: int, labels: Callable[[], np.ndarray], optimizer: torch.optim.Optimizer | None) -> None:
        """Lend the rows of a step to the optimizer.

        labels: gives the classes of the step's whole batch, over all processes and micro-batches, int64 [B].
        """
        if not self.sampled:
            return
        device = self.weight.device
        drawn = sample(self.first, self.last, self.sample_rate, self.seed, step, device)  # bool [own classes]
        present = torch.from_numpy(np.unique(labels())).to(device)
        present = present[(present >= self.first) & (present < self.last)] - self.first
        drawn[present] = True
        self._chosen = drawn.nonzero()[:, 0]  # waits for the device: how many there are decides the shapes of the step
        lines = self._lines()
        if optimizer is not None:
            state = optimizer.state[self.rows]
            for key, value in state.items():  # Adagrad's sums exist, one number everywhere, before the first step
                if self._is_moment(value) and key not in self.moments:
                    self.moments[key] = value[:1].expand_as(self.weight).contiguous()
            for key, full in self.moments.items():
                state[key] = full[lines]
        # Where the loss of the step before is still held, so is the shape that its graph wants of a gradient: torch
        # 2.15 forgets it when the type of `data` changes.
        self.rows.grad = None
        self.rows.data = self.rows.data[:0].half()
        self.rows.data = self.weight.data[lines]

    def put_back(self, optimizer: torch.optim.Optimizer) -> None:
        """Write what the optimizer made of the step's rows into the whole matrix."""
        if not self.sampled:
            return
        lines = self._lines()
        self.weight.data[lines] = self.rows.data
        for key, value in optimizer.state[self.rows].items():
            if self._is_moment(value):
                if key not in self.moments:
                    self.moments[key] = torch.zeros_like(self.weight.data)
                self.moments[key][lines] = value

    def own(self, labels: Tensor) -> Tensor:
        """Return where the classes [N] stand among this process's rows of the step; -1 for other processes' classes.

        Raises:
            ValueError: for a class that no process has, or that choose() was not told of: its loss would be that of a
                cosine of 0. On a GPU, where looking would hold up the step, an assertion of the device (RuntimeError).
        """
        known = (labels >= 0) & (labels < self.num_classes)
        inside = (labels >= self.first) & (labels < self.last)
        local = labels - self.first
        if self.sampled:
            assert self._chosen is not None, "choose() comes before the forward pass"
            known &= ~inside | torch.isin(local, self._chosen)
            local = torch.searchsorted(self._chosen, local)
        message = f"labels are outside [0, {self.num_classes}), or were not among those that choose() was given"
        if labels.device.type != "cpu":
            torch._assert_async(known.all(), message)  # pyright: ignore[reportPrivateImportUsage]
        elif not known.all():
            raise ValueError(f"{message}: {labels[~known].tolist()}")
        return local.masked_fill(~inside, -1)

    def _is_moment(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.shape == self.rows.shape

    def _lines(self) -> Tensor:
        assert self._chosen is not None
        lines = self._chosen[:, None] * self.sub_centres + torch.arange(self.sub_centres, device=self._chosen.device)
        return lines.flatten()


def _without_rows(module: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
    del state[f"{prefix}rows"]  # a copy of a few rows of `weight`


def _empty_rows(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    state[f"{prefix}rows"] = module.rows.data  # type: ignore[assignment,union-attr]


def shard(num_classes: int, part: int, parts: int) -> tuple[int, int]:
    """Return the first class of a part and the first of the next one."""
    return num_classes * part // parts, num_classes * (part + 1) // parts


def first_centres(first: int, last: int, sub_centres: int, size: int, seed: int) -> Tensor:
    """Draw the centres that classes [first, last) start from, float32 [(last - first) * sub_centres, size].

    A class's centre depends on (seed, class) alone, whatever process holds it.
    """
    out = torch.empty((last - first) * sub_centres, size)
    for block in range(first // BLOCK, -(-last // BLOCK)):
        generator = torch.Generator().manual_seed(hash_numbers(seed, block, INITIAL) >> 1)
        drawn = torch.empty(BLOCK * sub_centres, size).normal_(0.0, STANDARD_DEVIATION, generator=generator)
        low, high = max(first, block * BLOCK), min(last, (block + 1) * BLOCK)
        part = drawn[(low - block * BLOCK) * sub_centres : (high - block * BLOCK) * sub_centres]
        out[(low - first) * sub_centres : (high - first) * sub_centres] = part
    return out


INITIAL, SAMPLED = 101, 102
"""What a seed is hashed with here, apart from the streams of fastface/data/plan.py."""


def sample(first: int, last: int, rate: float, seed: int, step: int, device: torch.device) -> Tensor:
    """Choose each class of [first, last) with probability `rate` by a hash of (seed, step, class); bool.

    The finaliser of splitmix64 (fastface/data/plan.py) in signed arithmetic, which wraps the same bits.
    """
    key = _signed(hash_numbers(seed, step, SAMPLED))
    value = torch.arange(first, last, dtype=torch.int64, device=device)
    value = (value * _signed(GOLDEN)).add_(key)
    value = (value ^ _shifted(value, 30)).mul_(_signed(0xBF58476D1CE4E5B9))
    value = (value ^ _shifted(value, 27)).mul_(_signed(0x94D049BB133111EB))
    value = value ^ _shifted(value, 31)
    return (value >> 11) + (1 << 52) < int(rate * (1 << 53))  # the upper 53 bits, from -2^52 on


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >= 1 << 63 else bits


def _shifted(value: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros, as unsigned integers do."""
    return (value >> by) & ((1 << (64 - by)) - 1)
