"""Interval means of a training run -> a warning, once, when all embeddings have become one."""

import math

SAME = 0.99
"""Mean cosine between a batch's embeddings above which they are one. Untrained networks that end in BatchNorm, as
those of fastface do, begin below 0 (-1 / (batch - 1): BatchNorm takes the mean away); trained ones are near 0."""
ALIKE = 0.9
NEAR = 0.01


class Collapse:
    """Look at each interval of the log for a collapse: a network that gives every image the same embedding.

    A triplet loss ends there when it meets the hardest negatives too early (Schroff et al. 2015, section 3.2) or when
    the learning rate is too high, and stays there: its gradient vanishes, its loss is the margin.

    collapsed_loss: the loss of equal embeddings, where it is known: a triplet loss' margin, ln 2 for its soft margin.
    """

    def __init__(self, collapsed_loss: float | None = None) -> None:
        self.collapsed_loss = collapsed_loss
        self._said = False

    def look(self, first: int, last: int, mean: dict[str, float]) -> str | None:
        """Return the warning of an interval of steps, None where it is healthy or the warning was given before.

        mean: the interval's means; judged are `mean_cosine` (between the embeddings of a batch) and `loss`.
        """
        cosine, loss = mean.get("mean_cosine", math.nan), mean.get("loss", math.nan)
        stuck = self.collapsed_loss is not None and abs(loss - self.collapsed_loss) <= NEAR * self.collapsed_loss
        if self._said or not (cosine > SAME or (stuck and cosine > ALIKE)):
            return None
        self._said = True
        at = f", loss {loss:.4g} is that of equal embeddings" if stuck else ""
        return (
            f"WARNING: the embeddings have collapsed: since step {first} (looked at up to step {last}) all images of a "
            f"batch have nearly the same one (mean cosine {cosine:.3f}{at}), and nobody is told apart. Training goes "
            "on, but seldom comes out of this by itself. Usual causes: optim.lr is too high (Adam: 1e-4 to 3e-4; 0.1 "
            "is for SGD); the hardest negatives came too early (begin with semi-hard ones, or with a network trained "
            "as a classifier); identities whose images are not of one person. Change one, and start anew or from a "
            "checkpoint before that step"
        )
