"""YAML files and command-line overrides -> RunConfig, checked before any work starts."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError

from fastface.config import RunConfig
from fastface.spelling import nearest

# How pydantic names the branches of data.augment, a preset or a list, within the path to what is wrong.
BRANCHES = (("data", "augment", "preset"), ("data", "augment", "list"))


class Command(NamedTuple):
    config: RunConfig
    stem: str
    resume: str | None
    """None: a new run; "": the newest run of this config; else a run or step folder."""


def load_config(*files: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Merge YAML files left to right, then apply `--section.option value` overrides.

    Raises:
        ValueError: naming the key by its path, the nearest spelling and the file.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged = _merge(merged, _read_yaml(Path(file)))
    config = _validate(merged, " and ".join(map(str, files)) or "the defaults")
    if not overrides:
        return config
    import tyro

    changed = tyro.cli(
        tyro.conf.FlagConversionOff[tyro.conf.AvoidSubcommands[RunConfig]],
        default=config,
        args=list(overrides),
        prog="train.py",
    )
    # tyro builds the sections without pydantic's cross-field checks on every path: validate once more.
    return _validate(changed.model_dump(mode="json"), "the command line")


def parse_command(argv: Sequence[str] | None = None) -> Command:
    """Parse train.py's command line: --config FILE..., --resume [RUN], and --section.option overrides."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a face model from shards.",
        epilog="Every option of the YAML can be overridden: --optim.lr 0.05 --train.epochs 10. "
        "'train.py --config FILE --options' lists them with their present values.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", nargs="+", required=True, metavar="FILE", help="YAML files, merged left to right")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        default=None,
        metavar="RUN",
        help="go on from the newest verified checkpoint of RUN (default: the newest run of this config)",
    )
    parser.add_argument("--options", action="store_true", help="list every option and its value, then exit")
    known, rest = parser.parse_known_args(argv)
    if known.options:
        rest = ["--help"]
    try:
        config = load_config(*known.config, overrides=rest)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"train.py: {error}\n")
    return Command(config, Path(known.config[0]).stem, known.resume)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats (1e-3 is a number), duplicate keys refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"key {key!r} stands twice{node.start_mark}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        there = [p.name for p in path.parent.glob("*.yaml")]
        raise FileNotFoundError(f"no configuration file {path}{nearest(path.name, there)}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not readable as YAML: {error}") from None
    if not isinstance(content, dict | None):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected 'section:' keys, see configs/")
    return content or {}


def _merge(base: dict[str, Any], top: dict[str, Any], where: tuple[str, ...] = ()) -> dict[str, Any]:
    """Lay one file's keys over another's; a section that is given another name (another task) starts anew."""
    merged = dict(base)
    for key, value in top.items():
        below, there = base.get(key), (*where, str(key))
        merged[key] = value
        if isinstance(value, dict) and isinstance(below, dict):
            renamed = value.get("name", below.get("name")) != below.get("name")
            if not (renamed and _tagged(_type_at(there))):
                merged[key] = _merge(below, value, there)
    return merged


def _validate(content: dict[str, Any], where: str) -> RunConfig:
    try:
        # Through JSON, because strict validation then still takes lists for tuples and strings for paths.
        return RunConfig.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ValueError(f"{where}:\n  " + "\n  ".join(lines)) from None


def _explain(item: Any) -> str:
    loc = tuple(part for n, part in enumerate(item["loc"]) if item["loc"][: n + 1] not in BRANCHES)
    path = ".".join(str(part) for n, part in enumerate(loc) if part not in _tagged(_type_at(loc[:n])))
    if item["type"] == "extra_forbidden":
        owner = _type_at(loc[:-1])
        keys = list(owner.model_fields) if _is_section(owner) else []
        return f"unknown key {path}{nearest(str(loc[-1]), keys) or '; its section has ' + ', '.join(keys)}"
    if item["type"] == "value_error":
        return f"{path or 'run'}: {item['ctx']['error']}"
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names, wanted = list(_tagged(_type_at(loc))), item["ctx"].get("tag")
        what = f"no {wanted!r}{nearest(wanted, names)}" if wanted else "missing"
        return f"{path}.name: {what}; choose {', '.join(names)}"
    return f"{path}: {item['msg'].lower()}, got {item['input']!r}"


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _sections_in(kind: Any) -> list[type[BaseModel]]:
    """List the sections that a type is made of: those of a union, of a list, of a dictionary's values."""
    return [kind] if _is_section(kind) else [found for part in get_args(kind) for found in _sections_in(part)]


def _tagged(kind: Any) -> dict[str, type[BaseModel]]:
    """Return the sections of a union by the name that chooses them; nothing for any other type."""
    sections = [] if _is_section(kind) else _sections_in(kind)
    return {s.model_fields["name"].default: s for s in sections if "name" in s.model_fields}


def _type_at(parts: Sequence[int | str]) -> Any:
    """Return the type of what the keys `parts` lead to; None where nobody says."""
    kind: Any = RunConfig
    for part in parts:
        if _is_section(kind):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:  # dict[str, EvalSet] and tuple[Source, ...]: any key leads to a section; a union's name to its own
            sections, tagged = _sections_in(kind), _tagged(kind)
            if not tagged:
                kind = sections[0] if sections else None
            elif part in tagged:  # else the place in a list of a union
                kind = tagged[str(part)]
    return kind
