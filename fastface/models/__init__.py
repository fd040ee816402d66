"""Network name -> backbone that turns faces [B, 3, H, W] into embeddings [B, embedding_size]."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastface.models.fastcontextface import FastContextFace
from fastface.models.gmacs import count_gmacs, describe
from fastface.models.inception_resnet_v1 import InceptionResnetV1
from fastface.models.iresnet import DEPTHS, IResNet
from fastface.models.mbf import VARIANTS, Mbf
from fastface.models.minifasnet import VARIANTS as MINIFASNETS
from fastface.models.minifasnet import MiniFASNet
from fastface.models.mobilefacenet import MobileFaceNet
from fastface.models.neck import Backbone
from fastface.models.timm_backbone import STEMS, TimmBackbone, is_timm_name, unknown_name
from fastface.models.weights import load_backbone_weights, read_foreign

__all__ = [
    "BACKBONES",
    "STEMS",
    "Backbone",
    "build_backbone",
    "count_gmacs",
    "describe",
    "load_backbone_weights",
    "read_foreign",
]

# Our own networks; every other name is looked up in timm.
BACKBONES: dict[str, Callable[..., Backbone]] = {
    **{name: partial(IResNet, name) for name in DEPTHS},
    "mobilefacenet": MobileFaceNet,
    **{name: partial(Mbf, name) for name in VARIANTS},
    "inception_resnet_v1": InceptionResnetV1,
    "fastcontextface": FastContextFace,
    **{name: partial(MiniFASNet, name) for name in MINIFASNETS},
}


def build_backbone(
    name: str,
    *,
    embedding_size: int = 512,
    input_size: tuple[int, int] = (112, 112),
    dropout: float = 0.0,
    drop_path: float = 0.0,
    pretrained: bool | str | Path = False,
    stem: str = "auto",
) -> Backbone:
    """Build a backbone by name: one of BACKBONES, or any network of timm, such as convnext_atto.d2_in1k.

    input_size: (width, height) px. dropout: share of features zeroed before the last linear layer.
    drop_path: only for timm names: share of residual branches left out, sample by sample (stochastic depth).
    pretrained: only for timm names: True has timm fetch its published weights, a path fills the body from a
    checkpoint file of timm. stem: "auto" or "keep", see TimmBackbone; our own networks are made for small faces
    and have nothing to change. The module carries what Backbone lists. ValueError: unknown name (with the
    nearest ones), sizes the network cannot take, or a file that is not this network's.
    """
    if stem not in STEMS:
        raise ValueError(f"stem {stem!r} is unknown; choose one of: {', '.join(STEMS)}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
    if not 0.0 <= drop_path < 1.0:
        raise ValueError(f"drop_path is {drop_path}; it must be in [0, 1)")
    if isinstance(pretrained, str):
        pretrained = Path(pretrained)
    if name in BACKBONES:
        if pretrained:
            raise ValueError(
                f"{name} has no weights to download and is none of timm's; set pretrained: false and load a "
                "weights file instead"
            )
        if drop_path:
            raise ValueError(f"{name} leaves out no branches; set drop_path: 0, or choose a network of timm")
        return BACKBONES[name](embedding_size=embedding_size, input_size=input_size, dropout=dropout)
    if not is_timm_name(name):
        raise ValueError(unknown_name(name, tuple(BACKBONES)))
    return TimmBackbone(
        name,
        embedding_size=embedding_size,
        input_size=input_size,
        dropout=dropout,
        drop_path=drop_path,
        pretrained=pretrained,
        stem=stem,
    )
