"""Everything a run can be told: the sections of the YAML, their defaults and what they must satisfy together."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
import yaml
from pydantic import AfterValidator, Field, model_validator

from fastface.data.augment.presets import AnyAugment
from fastface.data.normalisation import PerColour, in_words, three
from fastface.eval_settings import EvalConfig
from fastface.fusion_settings import FusionTask
from fastface.plan_settings import PlanSettings, ShuffledPlan
from fastface.section import ColumnValues, Folders, Section
from fastface.task_settings import ArcFaceTask, TaskSettings


def _as_place(value: str | Path | None) -> str | Path | None:
    """Keep a URL as text: a Path would make one slash of its two."""
    return Path(value) if isinstance(value, str) and "://" not in value else value


def _above_zero(std: PerColour) -> PerColour:
    if not min(three(std)) > 0:
        raise ValueError(f"std {in_words(std)} must be above 0: pixels are divided by it")
    return std


def _as_said(value: bool | Path) -> bool | Path:
    """Take true and false of the command line for what they are, not for files of that name."""
    return {"true": True, "false": False}.get(str(value).lower(), value)


Place = Annotated[str | Path | None, AfterValidator(_as_place)]  # a folder, or a URL


class ModelConfig(Section):
    backbone: str = "iresnet50"
    """iresnet18|34|50|100|200, mobilefacenet, mbf, mbf_large, inception_resnet_v1, fastcontextface, or a timm model."""
    embedding_size: int = Field(default=512, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Of timm networks: share of residual branches left out, sample by sample (stochastic depth)."""
    stem: Literal["auto", "keep"] = "auto"
    """auto: timm's stems, made for 224 px, reduce less, so that 112 px end in about 7x7; keep: as timm has them."""
    pretrained: Annotated[bool | Path, AfterValidator(_as_said)] = False
    """Start a timm model's body from timm's published weights (true: needs a network, or timm's cache), or from a file
    of them (.safetensors, .pth); its embedding layer is new."""
    weights: Path | None = None
    """Start the backbone from a RUN, a step folder or a .safetensors file."""
    window: tuple[int, int, int, int] | None = None
    """x0, y0, x1, y1 px of the image that the network sees, e.g. 8, 0, 104, 112 for 112x96 networks."""


class Source(Section):
    """One of several shard sets to train on."""

    shards: Path
    """A folder made by tools/make_shards.py."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of each batch, relative to those of the other sources."""


class DataConfig(Section):
    shards: Place = None
    """A folder made by tools/make_shards.py, or the URL of one: http(s)://, s3:// and what else fsspec reads."""
    sources: tuple[Source, ...] = ()
    """Several such folders with their weights, instead of shards."""
    embeddings: Folders = ()
    """For tasks match and fusion, instead of shards: a folder made by tools/embed.py, or several of the same images."""
    labels: Literal["separate", "merge-by-name"] | None = None
    """With sources: whether identities of one name are one identity (merge-by-name) or not (separate)."""
    only: ColumnValues = Field(default_factory=dict)
    """Column -> value or values, such as {source: [A, B], attack: [none, print]}: only the images that have one of
    them, in each of these columns (label too). Values go by their names."""
    without: ColumnValues = Field(default_factory=dict)
    """Column -> value or values: all images but those that have one of them in any of these columns."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Leave this share out: of every source and class, persons (clips, or images, where nobody knows them) and copies
    of an image whole. An evaluation set of the same shards with the same held_out is that share."""
    plan: Annotated[PlanSettings, Field(discriminator="name")] = ShuffledPlan()
    """Which images make up a batch, by name: shuffled, per-identity, weighted, pairs, clips, windowed, mined."""
    remote_cache_gb: float = Field(default=50.0, gt=0)
    """Shards at a URL are kept on this machine up to this size (1e9 bytes); at least two windows of data.plan."""
    remote_cache_folder: Path | None = None
    """Where; null: fastface/shards in $XDG_CACHE_HOME or ~/.cache. All processes of a machine share it."""
    size: tuple[int, int] = (112, 112)
    """Width and height of the images in px; shards of another size are refused, unless `resize` is set."""
    resize: bool = False
    """Cut and resize images of other sizes when they are read, as make_shards --size does once and for all."""
    decoder: Literal["auto", "torch", "dali-cpu", "dali-gpu"] = "auto"
    """auto: dali-gpu where there is a GPU and DALI, else torch (CPU threads)."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip, after all of `augment`."""
    augment: Annotated[AnyAugment, tyro.conf.arg(metavar="PRESET", constructor=str)] = "none"
    """A preset (none, recognition, liveness, liveness_aggressive, detection), or a list of operators in the order in
    which they are applied: name, p, ranges; fastface/data/augment/ has them all."""
    scales: tuple[tuple[int, int], ...] = ()
    """Sizes in px of which every step draws one, for all its images after augmentation (multi-scale batches);
    empty: data.size. For networks that take any size; `low_resolution` mixes resolutions for the others."""
    mean: PerColour = 127.5
    std: Annotated[PerColour, AfterValidator(_above_zero)] = 127.5
    """Networks see (pixel - mean) / std: one number, or one for each of red, green and blue (ImageNet's, for timm's
    weights: mean 123.675 116.28 103.53, std 58.395 57.12 57.375)."""
    ahead: int = Field(default=3, ge=1)
    """Micro-batches decoded before they are asked for."""
    output: Literal["float32", "uint8"] = "float32"
    """What the loader delivers: uint8 is a quarter of the memory, and is normalised on the device that trains."""
    cache: str = "none"
    """Keep decoded images from the first epoch on: none, memory, device (a GPU's), auto (the first of device and
    memory where they fit), or a folder for a file that later runs find again."""
    check_crc: bool = True
    """Compare every image with its CRC when it is read (2 us each, decoding takes 60 to 100): decoders accept most
    flipped bits without a word."""
    max_damaged: float = Field(default=0.01, ge=0, le=1)
    """Share of the images that may turn out damaged: each is named, and the next good image of its identity takes its
    place. More than that stops the run."""

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if sum(map(bool, (self.shards, self.sources, self.embeddings))) > 1:
            raise ValueError("give either shards or sources" + (" or embeddings" if self.embeddings else ""))
        if bool(self.sources) != bool(self.labels):
            raise ValueError("sources and labels (separate or merge-by-name) go together")
        if self.embeddings and (self.only or self.without or self.held_out):
            raise ValueError("only, without and held_out select images: they have no meaning with embeddings")
        return self


class OptimConfig(Section):
    name: Literal["sgd", "adamw", "adam", "adagrad"] = "sgd"
    """adam and adagrad add weight decay to the gradient (L2); adamw does not."""
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """sgd."""
    nesterov: bool = False
    """sgd: Nesterov's momentum."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adam, adamw."""
    weight_decay: float = Field(default=5e-4, ge=0)
    decay_norms: bool = False
    """Also decay biases and norm parameters (InsightFace does; AdaFace and TFace do not)."""
    schedule: Literal["cosine", "multistep", "step", "polynomial", "constant"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    min_lr: float = Field(default=0.0, ge=0)
    """Where cosine and polynomial end, and below which step and multistep do not go."""
    milestones: tuple[float, ...] = ()
    """multistep: epochs (fractions allowed) after which lr is multiplied by gamma."""
    step_epochs: float | None = Field(default=None, gt=0)
    """step: every so many epochs lr is multiplied by gamma."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    power: float = Field(default=1.0, gt=0)
    """polynomial: exponent; 1 is InsightFace's linear decay."""
    clip_norm: float | None = Field(default=5.0, gt=0)
    """Largest norm of the gradient; null leaves it unclipped."""
    clip_parts: Literal["all", "network"] = "all"
    """What is clipped by its norm: the gradient of all that learns, or the network's alone, as InsightFace does."""
    freeze_epochs: float = Field(default=0.0, ge=0)
    """The network's loaded part stays as it is for the first so many epochs; what is new trains."""
    backbone_lr_scale: float = Field(default=1.0, gt=0)
    """Factor on the learning rate of the network's loaded part."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Evaluate and ship a moving average of the weights, of about 1 / (1 - ema_decay) steps; null: the weights."""

    @model_validator(mode="after")
    def _consistent(self) -> "OptimConfig":
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError("milestones belong to schedule: multistep, which needs at least one")
        if (self.schedule == "step") != (self.step_epochs is not None):
            raise ValueError("step_epochs belongs to schedule: step, which needs it")
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            raise ValueError("nesterov is for name: sgd with a momentum above 0")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is above lr {self.lr}")
        return self


class TrainConfig(Section):
    epochs: float = Field(default=20.0, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    """Stop after this many steps even if epochs ask for more (the schedule still follows epochs)."""
    batch_size: int = Field(default=128, gt=0)
    """Images per optimizer step, over all processes."""
    micro_batch: int | None = Field(default=None, gt=0)
    """Images per forward pass, the unit BatchNorm sees: processes x accumulation = batch_size / micro_batch.
    null: batch_size / processes of the first start. Halved, which is said, until the first step fits into the device's
    memory; kept on resume."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = "auto"
    """auto: bf16 on GPUs that have it, else fp32. fp64 is for numerical checks."""
    tf32: bool = True
    channels_last: bool = True
    """Channels innermost in memory: faster on GPUs, and on CPUs for depthwise networks (mobilefacenet 1.2x)."""
    compile: bool = False
    """torch.compile the backbone."""
    deterministic: bool = False
    """Bit-exact repetition on GPUs too, at some cost in speed (CPU runs always are)."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}")
        return self


class CheckpointConfig(Section):
    every_steps: int = Field(default=1000, gt=0)
    keep: int = Field(default=3, gt=0)
    """Newest checkpoints kept beside the best one."""
    keep_every_epochs: float | None = Field(default=None, gt=0)
    """Save at every so many epochs, and keep those for good; null: none."""


class LogConfig(Section):
    every_steps: int = Field(default=50, gt=0)
    every_percent: float = Field(default=5.0, gt=0, le=100)
    """Where there is no progress bar, say a line for every so much of the run."""
    tensorboard: bool = True


class RuntimeConfig(Section):
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """auto, cpu, cuda or cuda:N."""
    threads: int = Field(default=0, ge=0)
    """CPU threads for arithmetic; 0: cores / processes of this machine. Bit-exact repetition depends on it."""
    decode_threads: int = Field(default=0, ge=0)
    """CPU threads that decode; 0: 2 on CPU runs, cores / processes - 1 (at most 16) beside a GPU."""


class RunConfig(Section):
    """One training run."""

    seed: int = Field(default=0, ge=0)
    out: Path = Path("runs")
    """Run folders go to OUT/<stem of the first config file>/<UTC time>."""
    task: Annotated[TaskSettings | FusionTask, Field(discriminator="name")] = ArcFaceTask()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        name, rows = self.task.name, self.task.from_embeddings
        drawn = isinstance(self.task, FusionTask) and self.task.drawn is not None
        if drawn and (self.data.embeddings or self.data.shards or self.data.sources):
            raise ValueError("task.synthetic draws its embeddings: take data.embeddings away, or set synthetic: false")
        if not drawn and rows != bool(self.data.embeddings):
            learns = "embeddings, data.embeddings" if rows else "images, data.shards"
            raise ValueError(f"data.embeddings and tasks that learn from them go together: task {name} takes {learns}")
        for key, one in self.eval.sets.items():
            if (one.drawn is not None) != drawn:
                what = "drawn is for task fusion with task.synthetic, which is evaluated on the people it draws"
                raise ValueError(f"eval.sets.{key}: {what}")
            if not drawn and rows != bool(one.embeddings):
                raise ValueError(f"eval.sets.{key}: task {name} is evaluated on {'embeddings' if rows else 'images'}")
        if rows and (self.model.weights or self.model.pretrained):
            raise ValueError(f"task {name} has no network of images: take model.weights and model.pretrained away")
        if self.task.kind != "recognition" and (self.eval.flip != "none" or self.eval.centre):
            raise ValueError(
                f"eval.flip and eval.centre are for networks that embed; task {name} is evaluated as it is"
            )
        return self

    def dump(self) -> str:
        """The resolved configuration as YAML; load_config reads it back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
