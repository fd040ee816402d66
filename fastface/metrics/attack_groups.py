"""Presentations in parts -> their error rates at one threshold: groups of attacks, and values of a column."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastface.metrics.attacks import BONA_FIDE, rates_by_species
from fastface.metrics.presentations import Presentations
from fastface.metrics.report import MARK, align
from fastface.spelling import nearest


def parse_groups(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read groups of attacks such as 2d=print,replay. Raises ValueError for other texts, and names given twice."""
    groups: dict[str, list[str]] = {}
    taken: set[str] = set()
    for text in texts:
        name, _, listed = text.partition("=")
        attacks = [attack for attack in listed.split(",") if attack]
        if not name or not attacks or name in groups:
            raise ValueError(f"--attack-groups takes NAME=ATTACK,ATTACK, each name once, not {text!r}")
        if again := taken & set(attacks):
            raise ValueError(f"--attack-groups: {again.pop()!r} is in two groups")
        taken |= set(attacks)
        groups[name] = attacks
    return groups


def by_groups(presented: Presentations, groups: Mapping[str, Sequence[str]], threshold: float) -> list[dict[str, Any]]:
    """Return the rates of live faces and of groups of attacks, each pooled, as parts named by their group.

    Raises ValueError for an attack that is not there.
    """
    place = {name: number for number, name in enumerate(presented.attacks)}
    found = []
    for name, attacks in groups.items():
        for attack in attacks:
            if attack not in place:
                known = ", ".join(presented.attacks)
                hint = nearest(attack, presented.attacks)
                raise ValueError(f"--attack-groups: there is no attack {attack!r}{hint}; there are {known}")
        chosen = np.isin(presented.species, [place[attack] for attack in attacks])
        part = presented.take(chosen)
        pooled = part._replace(species=np.zeros(len(part.species), np.int64), attacks=[", ".join(attacks)])
        found.append({"value": name, "rates": rates_by_species(pooled, threshold)})
    return found


def by_values(presented: Presentations, values: np.ndarray, threshold: float) -> list[dict[str, Any]]:
    """Return the rates of each part of the presentations by a value of each, str [P], at one threshold for all."""
    return [
        {"value": str(value), "rates": rates_by_species(presented.take(values == value), threshold)}
        for value in np.unique(values)
    ]


def format_groups(title: str, parts: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with a row for each part's live faces and attacks."""
    rows = [[title, "", "presentations", "errors", "rate", "95 %"]]
    for part in parts:
        for k, group in enumerate(part["rates"]):
            low, high = group["interval"]
            rate = "BPCER" if group["name"] == BONA_FIDE else f"APCER {group['name']}"
            mark = "" if group["supported"] else f"{MARK} "
            rows.append(
                [
                    part["value"] if k == 0 else "",
                    rate,
                    f"{group['presentations']:,}",
                    f"{group['errors']:,}",
                    f"{mark}{group['rate']:.4f}",
                    f"[{low:.4f}, {high:.4f}]",
                ]
            )
    return "\n".join([*align(rows), f"one threshold for all; {MARK} fewer than 30 errors: too few to compare by"])
