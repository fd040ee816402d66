"""Options that take several words, before the words that no option takes -> both, as they were meant.

`verify.py --recognition M1 M2 a.jpg b.jpg`: argparse gives all four words to the option. How many words belong to no
option is known, so they are taken back from its end.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class Several(argparse.Action):
    """Take one word or more, also when given again; with nargs="+"."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), *values])
        namespace.last_several = self.dest


def parse_with_last(
    parser: argparse.ArgumentParser,
    last: str,
    count: int,
    arguments: Sequence[str] | None = None,
    *,
    unless: str | None = None,
) -> dict[str, Any]:
    """Parse a command line in which `count` words, the positional `last` (nargs="*"), belong to no option.

    unless: an option with which there may be none.
    """
    options = vars(parser.parse_args(arguments))
    own, several = options[last], options.pop("last_several", None)
    if not own and unless is not None and options[unless]:
        return options
    if not own and several is not None and len(options[several]) > count:
        options[several], options[last] = options[several][:-count], options[several][-count:]
    elif len(own) != count:
        parser.error(f"{count} of {last} wanted, {len(own)} given")
    return options
