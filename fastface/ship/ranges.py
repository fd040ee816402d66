"""RUN -> the images it learned from, whose activations set the ranges of int8."""

from fastface.config import RunConfig
from fastface.data.index import Index
from fastface.run import open_data


def training_index(config: RunConfig) -> Index:
    """Open the shards that a run learned from.

    Raises:
        ValueError: where it brings none, or they cannot be opened.
    """
    if config.data.shards is None and not config.data.sources:
        raise ValueError(
            "this model brings no training shards, whose images would set int8's ranges: give --int8-images "
            "DIR_OR_SHARDS, cut as it takes them, of no test set"
        )
    try:
        return open_data(config)
    except (ValueError, OSError) as error:
        raise ValueError(f"the run's training shards cannot be opened, give --int8-images: {error}") from None
