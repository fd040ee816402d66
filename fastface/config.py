"""YAML files and command-line overrides -> RunConfig: everything a run can be told, checked before any work."""

import argparse
import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Section(BaseModel):
    """A part of the YAML: unknown keys and wrong types are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class ArcFaceTask(Section):
    """Identity classification with an angular margin; the embedding is what remains."""

    name: Literal["arcface"] = "arcface"
    margin: str = "arcface"
    """A name from fastface.losses.margin.MARGINS."""
    m: float = Field(0.5, ge=0)
    """Margin: radians for arcface, cosine for cosface (0.35 to 0.4 there)."""
    s: float = Field(64.0, gt=0)
    """Scale of the cosines before the softmax."""
    gradient: Literal["exact", "straight_through"] = "exact"
    """straight_through takes d logit / d cosine = s, as InsightFace's trainer does since December 2022."""


class ModelConfig(Section):
    backbone: str = "iresnet50"
    """iresnet18|34|50|100|200, mobilefacenet, or any timm model by name."""
    embedding_size: int = Field(512, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    pretrained: bool = False
    """Start a timm model from timm's published weights (needs a network, or timm's cache)."""
    weights: Path | None = None
    """Start the backbone from a RUN, a step folder or a .safetensors file."""
    window: tuple[int, int, int, int] | None = None
    """x0, y0, x1, y1 px of the image that the network sees, e.g. 8, 0, 104, 112 for 112x96 networks."""


class DataConfig(Section):
    shards: Path | None = None
    """A folder made by tools/make_shards.py."""
    size: tuple[int, int] = (112, 112)
    """Width and height of the images in px; shards of another size are refused."""
    decoder: Literal["auto", "torch", "dali-cpu", "dali-gpu"] = "auto"
    """auto: dali-gpu where there is a GPU and DALI, else torch (CPU threads)."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    mean: float = 127.5
    std: float = Field(127.5, gt=0)
    """Networks see (pixel - mean) / std."""
    ahead: int = Field(3, ge=1)
    """Micro-batches decoded before they are asked for."""
    check_crc: bool = False
    """Check every sample against its CRC when it is read (about 1 us a sample)."""


class OptimConfig(Section):
    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(5e-4, ge=0)
    decay_norms: bool = False
    """Also decay biases and norm parameters (InsightFace does; AdaFace and TFace do not)."""
    schedule: Literal["cosine", "multistep", "polynomial", "constant"] = "cosine"
    warmup_epochs: float = Field(0.0, ge=0)
    milestones: tuple[float, ...] = ()
    """multistep: epochs (fractions allowed) after which lr is multiplied by gamma."""
    gamma: float = Field(0.1, gt=0, le=1)
    power: float = Field(1.0, gt=0)
    """polynomial: exponent; 1 is InsightFace's linear decay."""
    clip_norm: float | None = Field(5.0, gt=0)
    """Largest norm of the whole gradient; null leaves it unclipped."""

    @model_validator(mode="after")
    def _consistent(self) -> "OptimConfig":
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError("milestones belong to schedule: multistep, which needs at least one")
        return self


class TrainConfig(Section):
    epochs: float = Field(20.0, gt=0)
    max_steps: int | None = Field(None, gt=0)
    """Stop after this many steps even if epochs ask for more (the schedule still follows epochs)."""
    batch_size: int = Field(128, gt=0)
    """Images per optimizer step, over all processes."""
    micro_batch: int | None = Field(None, gt=0)
    """Images per forward pass, the unit BatchNorm sees: processes x accumulation = batch_size / micro_batch.
    null: batch_size / processes of the first start; kept on resume."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = "auto"
    """auto: bf16 on GPUs that have it, else fp32. fp64 is for numerical checks."""
    tf32: bool = True
    channels_last: bool | None = None
    """null: on GPUs yes, on CPUs no."""
    compile: bool = False
    """torch.compile the backbone."""
    deterministic: bool = False
    """Bit-exact repetition on GPUs too, at some cost in speed (CPU runs always are)."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}")
        return self


class EvalSet(Section):
    """Pairs to verify: images (shard set, folder or .tar) with a pairs file or a number, or a .bin file."""

    images: Path | None = None
    pairs: int | Path = 100_000
    """A pairs file, or how many pairs to sample from the shard set's labels."""
    bin: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "EvalSet":
        if (self.images is None) == (self.bin is None):
            raise ValueError("give either images (with pairs) or bin")
        return self


class EvalConfig(Section):
    sets: dict[str, EvalSet] = {}
    """Name -> pairs. The name prefixes the metrics: lfw/acc."""
    every_epochs: float | None = Field(1.0, gt=0)
    """null: only at the end."""
    best_metric: str | None = None
    """Which metric chooses the best checkpoint, e.g. lfw/acc or val/tar_1e-3; null: the last is the best."""
    patience: int | None = Field(None, gt=0)
    """Stop after so many evaluations without a better best_metric; null: never."""
    flip: Literal["none", "sum", "concat"] = "none"
    """Also embed the mirrored image, and add or append its embedding."""
    centre: bool = False
    """Subtract the mean embedding of the other folds before comparing."""
    batch_size: int = Field(128, gt=0)
    seed: int = 0
    """Of the sampled pairs."""

    @model_validator(mode="after")
    def _consistent(self) -> "EvalConfig":
        if self.patience and not self.best_metric:
            raise ValueError("patience needs best_metric")
        if self.best_metric and self.best_metric.split("/")[0] not in self.sets and self.best_metric != "loss":
            near = _nearest(self.best_metric.split("/")[0], list(self.sets))
            raise ValueError(f"best_metric {self.best_metric!r} names no set of eval.sets{near}")
        return self


class CheckpointConfig(Section):
    every_steps: int = Field(1000, gt=0)
    keep: int = Field(3, gt=0)
    """Newest checkpoints kept beside the best one."""


class LogConfig(Section):
    every_steps: int = Field(50, gt=0)
    tensorboard: bool = True


class RuntimeConfig(Section):
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int = Field(0, ge=0)
    """CPU threads for arithmetic; 0: cores / processes of this machine. Bit-exact repetition depends on it."""
    decode_threads: int = Field(0, ge=0)
    """CPU threads that decode; 0: 2 on CPU runs, cores / processes - 1 (at most 16) beside a GPU."""


class RunConfig(Section):
    """One training run."""

    seed: int = Field(0, ge=0)
    out: Path = Path("runs")
    """Run folders go to OUT/<stem of the first config file>/<UTC time>."""
    task: ArcFaceTask = ArcFaceTask()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def dump(self) -> str:
        """The resolved configuration as YAML; load_config reads it back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


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

    changed = tyro.cli(tyro.conf.AvoidSubcommands[RunConfig], default=config, args=list(overrides), prog="train.py")
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
        near = _nearest(path.name, [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else [])
        raise FileNotFoundError(f"no configuration file {path}{near}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not readable as YAML: {error}") from None
    if not isinstance(content, dict | None):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected 'section:' keys, see configs/")
    return content or {}


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _validate(content: dict[str, Any], where: str) -> RunConfig:
    try:
        # Through JSON, because strict validation then still takes lists for tuples and strings for paths.
        return RunConfig.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        lines = [_explain(item, content) for item in error.errors()]
        raise ValueError(f"{where}:\n  " + "\n  ".join(lines)) from None


def _explain(item: Any, content: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        owner = _section_at(item["loc"][:-1])
        return f"unknown key {path}{_nearest(str(item['loc'][-1]), list(owner.model_fields) if owner else [])}"
    if item["type"] == "value_error":
        return f"{path or 'run'}: {item['ctx']['error']}"
    return f"{path}: {item['msg'].lower()}, got {item['input']!r}"


def _section_at(parts: Sequence[int | str]) -> type[BaseModel] | None:
    section: Any = RunConfig
    for part in parts:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[str(part)].annotation
        else:  # dict[str, EvalSet]: any key leads to its value type
            section = next((a for a in get_args(section) if isinstance(a, type) and issubclass(a, BaseModel)), None)
    return section if isinstance(section, type) and issubclass(section, BaseModel) else None


def _nearest(name: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else (f"; choose from {', '.join(choices)}" if choices else "")
