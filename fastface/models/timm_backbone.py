"""Face -> embedding with any network of timm, its stem adapted to small faces and its classifier replaced.

Networks made for 224 px divide the image by 32 and leave 4x4 cells of a 112 px face. InsightFace measured in
2017 what that costs: LFW 99.28 with the ImageNet stem, 99.57 to 99.65 with a stem that does not stride
(SE-ResNet50 on VGGFace2 at 112 px). So for inputs up to 128 px the first stride is halved: 7x7 cells remain.
"""

from __future__ import annotations

import difflib
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from fastface.models.neck import Backbone, EmbeddingNeck
from fastface.models.timm_weights import create_from_file

STEMS = ("auto", "keep")
SMALL_PX = 128
# Where timm's families keep their first strided convolution; the first that exists and strides is edited.
STEM_CONVS = (
    "conv_stem",  # efficientnet, mobilenetv3 and v4, ghostnet, lcnet, hardcorenas, repghost
    "conv_stem.conv",  # mobilenetv5
    "conv1",  # resnet, resnext, seresnet, res2net, sknet, hrnet, xception
    "conv1.0",  # resnet*d, resnet*t, resnest: the first of three 3x3
    "layer0.conv1",  # legacy senet
    "stem.conv",  # regnet, resnetv2, gernet, rexnet, nfnet, mobilevit; 7x7/4 in davit, poolformer, caformer
    "stem.conv1",  # mambaout
    "stem.conv1.conv",  # cspnet
    "stem.conv1.c",  # repvit, iformer
    "stem.0",  # 4x4/4 in convnext, edgenext, inception_next, rdnet; selecsls
    "stem.0.conv",  # vovnet, starnet, nextvit, cspnext, lowformer, lcnetv2, xception_aligned
    "stem.proj",  # focalnet
    "stem.stem.0.conv",  # hgnet
    "stem.in_conv.conv",  # efficientvit
    "features.conv0",  # densenet
    "features.conv1_1.conv",  # dpn
    "patch_embed.conv1.conv",  # tiny_vit, efficientvit_msra
    "patch_embed.0.c",  # shvit
    "patch_embed.proj",  # pvt_v2, fasternet
)


class TimmBackbone(Backbone):
    """Build timm's network `name` with an embedding neck, for faces of `input_size` (width, height) px.

    Networks that end in a feature map [C, H, W] get BatchNorm, dropout, flatten, linear, BatchNorm on the
    whole map. Token models (ViT and relatives) keep timm's own pooling or class token, then linear and
    BatchNorm. Parameters that this path never reaches (classifier convolutions, norms after pooling) are
    removed, since DistributedDataParallel waits for a gradient of every parameter.

    stem: "auto" halves the first stride (or the patch) for inputs up to 128 px and warns where it does not
    know how; "keep" leaves the network as timm has it. Pretrained weights fit either way. pretrained: True has
    timm fetch its published weights, a path is a checkpoint file of timm, see create_from_file.

    any_size holds for token models without position embeddings of a fixed number; a map is flattened by the
    neck, whose linear layer is made for its size.
    """

    neck_modules = ("neck",)

    def __init__(
        self,
        name: str,
        *,
        embedding_size: int = 512,
        input_size: tuple[int, int] = (112, 112),
        dropout: float = 0.0,
        drop_path: float = 0.0,
        pretrained: bool | Path = False,
        stem: str = "auto",
    ) -> None:
        super().__init__(name, embedding_size, input_size)
        assert stem in STEMS
        assert is_timm_name(name)
        small = stem == "auto" and max(input_size) <= SMALL_PX
        self.net, notes = _create(name, input_size, small, drop_path, pretrained)
        self.notes += notes
        self.layout = "nchw"
        self.final_map: tuple[int, int] | None = None  # width, height; None for tokens
        features = self._dry_run(stem)
        if features.ndim == 3:
            self.layout = "tokens"
            features = self._dry_run(stem)
            self.any_size = self._takes_other_sizes()
        else:
            if features.shape[1] != self.net.num_features == features.shape[3]:
                self.layout = "nhwc"
                features = features.permute(0, 3, 1, 2)
            self.final_map = (features.shape[3], features.shape[2])
            if small and min(self.final_map) < min(input_size) // 16 - 1:
                warnings.warn(_small_map(name, input_size, self.final_map), stacklevel=3)
        _drop_unreached(self.net, features)
        self.neck = EmbeddingNeck(tuple(features.shape[1:]), embedding_size, dropout)

    def _features(self, images: Tensor) -> Tensor:
        if self.layout == "tokens":
            return self.net(images)  # [B, F], pooled
        x = self.net.forward_features(images)  # [B, C, H, W]; [B, H, W, C] in swin and mambaout
        return x.permute(0, 3, 1, 2) if self.layout == "nhwc" else x

    def forward(self, images: Tensor) -> Tensor:
        return self.neck(self._features(images))

    def _takes_other_sizes(self) -> bool:
        """Try twice the size, and one pixel more."""
        width, height = self.input_size
        training = self.net.training
        self.net.eval()
        try:
            with torch.no_grad():
                for size in ((2 * height, 2 * width), (height + 1, width + 1)):
                    self.net(torch.zeros(1, 3, *size, device=next(self.net.parameters()).device))
        except Exception:  # each network has its own words for a size that it cannot take
            return False
        finally:
            self.net.train(training)
        return True

    def _dry_run(self, stem: str) -> Tensor:
        """Run two black images through the network, where its parameters are, and keep the graph."""
        width, height = self.input_size
        device = next(self.net.parameters()).device
        training = self.net.training
        self.net.eval()  # running statistics stay as they are
        try:
            with torch.enable_grad():
                features = self._features(torch.zeros(2, 3, height, width, device=device))
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"{self.name} does not accept {width}x{height} px faces with stem={stem!r}: {error}. "
                "Change input_size or stem, or choose another network."
            ) from error
        finally:
            self.net.train(training)
        expected = (2,) if self.layout == "tokens" else (3, 4)
        if not isinstance(features, Tensor) or features.ndim not in expected:
            kind = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"{self.name} returns {kind}; one feature map or a row of tokens was expected")
        return features


def is_timm_name(name: str) -> bool:
    """Tell whether timm has this network; a pretrained tag after the dot is not looked at."""
    return timm.is_model(name.split(".")[0])


def unknown_name(name: str, ours: tuple[str, ...]) -> str:
    """Say that no network has this name, and which names are nearest in `ours` and in timm."""
    base = name.split(".")[0]
    nearest = difflib.get_close_matches(base, [*ours, *timm.list_models()], n=4, cutoff=0.4)
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    return f"backbone {name!r} is unknown; {hint}Known: {', '.join(ours)}, and every name of timm.list_models()"


def _create(
    name: str, input_size: tuple[int, int], small: bool, drop_path: float, pretrained: bool | Path
) -> tuple[Any, list[str]]:
    """Create timm's model for this input, with the first stride or patch halved if `small`; add notes on it."""
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    config = timm.get_pretrained_cfg(name.split(".")[0])
    if config is not None and config.fixed_input_size:  # position embeddings or windows depend on the size
        options["img_size"] = (input_size[1], input_size[0])
        with torch.device("meta"):
            probe: Any = timm.create_model(name, num_classes=0)
        patches = getattr(probe, "patch_embed", getattr(probe, "stem", None))
        if isinstance(patches, PatchEmbed):
            size: Any = patches.patch_size
            patch = max(1, size[0] // 2) if small else size[0]
            if input_size[0] % patch or input_size[1] % patch:
                raise ValueError(
                    f"{name} cuts faces into patches of {patch}x{patch} px, which do not fill "
                    f"{input_size[0]}x{input_size[1]} px; choose an input_size of multiples of {patch}"
                )
            options["patch_size"] = patch
            small = False
    # Before weights come from a file the network is tried as shapes: what timm cannot build is not the file's fault.
    from_file = isinstance(pretrained, Path)
    notes: list[str] = []
    try:
        with torch.device("meta") if from_file else nullcontext():
            net: Any = timm.create_model(name, pretrained=pretrained is True, num_classes=0, **options)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise ValueError(f"timm cannot build {name!r} with {options}, pretrained={pretrained}: {error}") from error
    if from_file:
        net, note = create_from_file(name, pretrained, options)
        notes.append(note)
    if small:
        _halve_first_stride(net)
    return net, notes


def _halve_first_stride(net: nn.Module) -> None:
    """Halve the stride of the stem's first convolution, if it is where a known family has it."""
    modules = dict(net.named_modules())
    for path in STEM_CONVS:
        conv = modules.get(path)
        if isinstance(conv, nn.Conv2d) and conv.stride[0] > 1:
            conv.stride = tuple(stride // 2 for stride in conv.stride)
            # 4x4/4 patches have no padding; at stride 2 one pixel keeps 112 -> 56 instead of 55.
            if conv.padding == (0, 0) and conv.kernel_size[0] == 2 * conv.stride[0]:
                conv.padding = (conv.kernel_size[0] // 4, conv.kernel_size[1] // 4)
            return


def _small_map(name: str, input_size: tuple[int, int], final_map: tuple[int, int]) -> str:
    (width, height), (columns, rows) = input_size, final_map
    return (
        f"{name}: the last feature map of a {width}x{height} px face is {columns}x{rows} cells; about "
        f"{width // 16}x{height // 16} works better, but this family's stem is not known here. Use a larger "
        "input_size or another network."
    )


def _drop_unreached(net: nn.Module, features: Tensor) -> None:
    """Replace by Identity what has no path to the features, and freeze single parameters that have none."""
    names, parameters = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    reached = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    unreached = []
    for path, module in net.named_modules():
        inside = [f"{path}.{name}" for name, _ in module.named_parameters()]
        if path and inside and not reached.intersection(inside):
            unreached.append(path)
    for path in unreached:
        if not any(path.startswith(f"{other}.") for other in unreached):
            parent, _, child = path.rpartition(".")
            setattr(net.get_submodule(parent), child, nn.Identity())
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in reached and parameter.requires_grad)
