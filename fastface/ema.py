"""The weights of every step -> their exponential moving average, which is evaluated and shipped in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, _foreach_copy_, _foreach_lerp_, nn  # type: ignore[attr-defined]


def decay_at(step: int, decay: float) -> float:
    """Return how much of the average the update after `step` (counted from 0) keeps.

    min(decay, (1 + step) / (10 + step)), the rule of TensorFlow's ExponentialMovingAverage with num_updates: the
    average forgets the untrained weights within the first steps, whatever the decay.
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """Average a module's weights over the steps: average <- d * average + (1 - d) * weights, d = decay_at(step).

    Running statistics of BatchNorm are averaged with the weights, not copied: they change with the weights, to first
    order linearly, so their average over the same steps is what the averaged weights would measure, while the latest
    ones belong to the latest weights. What is not a float (a count of batches) is copied.

    It depends on the weights and the step alone: with the average of a checkpoint, a resumed run has the same bits.

    Args:
        module: what ships, in its final place (device, dtype, memory format); its tensors must stay the same objects.
        decay: of the average, in (0, 1); it looks back over about 1 / (1 - decay) steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"the decay of the weights' average is {decay}; it must be in (0, 1), 0.9999 is usual")
        self.decay = decay
        self._module = module
        self._live = _tensors(module)
        self._average = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._floats = [name for name, tensor in self._live.items() if tensor.is_floating_point()]
        self._others = [name for name in self._live if name not in set(self._floats)]
        self._applied = False

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as `step` (counted from 0) left them. No synchronisation with the device."""
        assert not self._applied, "the module holds the average, not the weights"
        weight = 1.0 - decay_at(step, self.decay)
        if self._floats:
            average, live = self._lists(self._floats)
            _foreach_lerp_(average, live, weight)
        if self._others:
            _foreach_copy_(*self._lists(self._others))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the module hold the average for as long as the context lasts, then its weights again, to the bit."""
        assert not self._applied, "the average is applied already"
        self._check_same_tensors()
        average, live = self._lists(list(self._live))
        with torch.no_grad():
            weights = [tensor.detach().clone() for tensor in live]
            _foreach_copy_(live, average)
        self._applied = True
        try:
            yield
        finally:
            with torch.no_grad():
                _foreach_copy_(live, weights)
            self._applied = False

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average by the module's own names: the tensors themselves, which the next update changes."""
        self._check_same_tensors()
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put a saved average back.

        Raises:
            ValueError: for names or shapes that are not this module's.
        """
        odd = sorted(state.keys() ^ self._average.keys())
        odd += [name for name in state.keys() & self._average.keys() if state[name].shape != self._average[name].shape]
        if odd:
            raise ValueError(
                f"the saved average of the weights does not fit this network: {len(odd)} names or shapes differ, "
                f"first {odd[0]!r}; resume with the model section the run began with"
            )
        for name, tensor in state.items():
            self._average[name].copy_(tensor)

    def _lists(self, names: list[str]) -> tuple[list[Tensor], list[Tensor]]:
        return [self._average[name] for name in names], [self._live[name] for name in names]

    def _check_same_tensors(self) -> None:
        now = _tensors(self._module)
        moved = [name for name, tensor in self._live.items() if now.get(name) is not tensor]
        assert not moved, f"{moved[0]} was replaced by another tensor: build the average after moving the module"


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, the objects themselves."""
    return dict(module.state_dict(keep_vars=True))
