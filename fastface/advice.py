"""Configuration and data set -> warnings about known traps, each with the figure behind it, before it trains.

Nothing here is an error: what cannot work is refused elsewhere. A row of ADVICE fires where published recipes or
measurements say that a setting is likely to cost accuracy or time; its text names the setting, the figure, its source
and what to do. A name with # is an issue of that GitHub project.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from fastface.advice_facts import Facts
from fastface.config import RunConfig
from fastface.data.normalisation import PerColour, three


class Advice(NamedTuple):
    name: str
    fires: Callable[[Facts], bool]
    text: str
    """Takes {f.…} from the facts."""


def advise(
    config: RunConfig,
    *,
    num_classes: int,
    num_images: int,
    micro_batch: int,
    bf16: bool = False,
    weights_normalisation: tuple[PerColour, PerColour] | None = None,
) -> list[str]:
    """Return the texts of all rows that fire for this run, in the order of the table.

    Most are about networks that embed images: others get those of ANY_NETWORK, and runs on embeddings none.
    """
    if config.task.from_embeddings:
        return []
    rows = ADVICE if config.task.kind == "recognition" else [row for row in ADVICE if row.name in ANY_NETWORK]
    facts = Facts(config, num_classes, num_images, micro_batch, bf16, weights_normalisation)
    return [row.text.format(f=facts) for row in rows if row.fires(facts)]


ANY_NETWORK = {
    "warmup_too_long",
    "frozen_throughout",
    "left_out",
    "coupled_decay",
    "normalisation",
    "imagenet_normalisation",
    "small_batch_statistics",
    "fp16",
}
"""Advice that holds for every network of images, whatever it learns."""

ADVICE = (
    # How fast to learn.
    Advice(
        "adam_lr",
        lambda f: f.adaptive and f.optim.lr >= 0.01,
        "optim.lr {f.optim.lr:g} with {f.optim.name}: 0.1 is a rate for SGD and AdaGrad (facenet's default) and "
        "collapses with Adam; take 1e-4 to 3e-4 for triplets (Hermans et al., 2017: 3e-4), about 1e-3 for margins",
    ),
    Advice(
        "sgd_lr_high",
        lambda f: f.sgd_margin and f.optim.lr > 4 * f.linear_lr,
        "optim.lr {f.optim.lr:g} for {f.batch:,} images a step: InsightFace's rule is 0.1 per 1,024 up to 4,096, here "
        "{f.linear_lr:.2g}; its recipes: 0.02 for 128, 0.2 for 2,048, 0.4 to 0.6 for 8,192 (AdaFace: 0.1 for 512)",
    ),
    Advice(
        "sgd_lr_low",
        lambda f: f.sgd_margin and not f.loaded and f.optim.lr < 0.1 * f.linear_lr,
        "optim.lr {f.optim.lr:g} for {f.batch:,} images a step, from scratch: InsightFace's rule is 0.1 per 1,024 up "
        "to 4,096, here {f.linear_lr:.2g}; the lowest of its recipes is a quarter of that",
    ),
    Advice(
        "transformer_sgd",
        lambda f: f.transformer and f.optim.name == "sgd" and f.optim.lr >= 0.01 and f.loss.margin == "arcface",
        "{f.backbone} with margin arcface and SGD at {f.optim.lr:g}: ViT, ConvNeXt, MaxViT, NFNet and CoAtNet stall "
        "at a loss of about 20 or end in NaN (insightface#2144); margin cosface converges, arcface needs adamw at "
        "1e-5 to 1e-4",
    ),
    Advice(
        "transformer_adamw",
        lambda f: f.transformer and f.adaptive and 1e-3 <= f.optim.lr < 0.01 and f.loss.margin == "arcface",
        "{f.backbone} with margin arcface and {f.optim.name} at {f.optim.lr:g}: it ended in NaN at 1e-3 "
        "(insightface#2043) and needs 1e-5 to 1e-4 (insightface#2144); InsightFace's ViTs train cosface, m 0.4, at "
        "1e-3",
    ),
    Advice(
        "no_warmup",
        lambda f: not f.optim.warmup_epochs and (f.transformer or (f.sgd_margin and f.batch >= 2048)),
        "optim.warmup_epochs 0 with {f.backbone} and {f.batch:,} images a step: InsightFace warms up for 2 epochs at "
        "2,048 images, 2 to 4 at 8,192, and for a tenth of the epochs with ViTs",
    ),
    Advice(
        "adamw_decay",
        lambda f: f.optim.name == "adamw" and 0 < f.optim.weight_decay < 5e-3,
        "optim.weight_decay {f.optim.weight_decay:g} with adamw does next to nothing: a step removes lr x "
        "weight_decay of a weight; figures as 5e-4 are SGD's, InsightFace's ViTs take 0.1, our configs 0.05",
    ),
    Advice(
        "coupled_decay",
        lambda f: f.optim.name != "adamw" and f.optim.weight_decay >= 5e-3,
        "optim.weight_decay {f.optim.weight_decay:g} with {f.optim.name} is added to the gradient: figures as 0.05 "
        "are AdamW's; published are 5e-4 for SGD (InsightFace), 1e-4 for Adam with triplets",
    ),
    Advice(
        "insightface_decay",
        lambda f: (
            f.sgd_margin
            and f.backbone.startswith("iresnet")
            and f.optim.schedule == "polynomial"
            and f.optim.weight_decay > 0
            and not f.optim.decay_norms
        ),
        "optim.decay_norms false with InsightFace's schedule and network: InsightFace decays biases and norms as "
        "well; its published figures are for decay_norms true",
    ),
    # Epochs that never come.
    Advice(
        "warmup_too_long",
        lambda f: f.optim.warmup_epochs >= f.epochs,
        "optim.warmup_epochs {f.optim.warmup_epochs:g} of {f.epochs:g} epochs: the whole run is warm-up",
    ),
    Advice(
        "lr_never_falls",
        lambda f: f.epochs <= f.first_drop < math.inf,
        "optim.schedule {f.optim.schedule} first lowers the learning rate after the last of {f.epochs:g} epochs",
    ),
    Advice(
        "frozen_throughout",
        lambda f: f.optim.freeze_epochs >= f.epochs,
        "optim.freeze_epochs {f.optim.freeze_epochs:g} of {f.epochs:g} epochs: the loaded network never trains",
    ),
    Advice(
        "few_views",
        lambda f: f.views < 1,
        "an epoch of data.plan {f.plan} is not every image: {f.epochs:g} epochs show an image {f.views:.2g} times on "
        "average; raise train.epochs",
    ),
    Advice(
        "left_out",
        lambda f: f.left_out > 0.1 * f.num_images,
        "train.batch_size {f.batch} leaves out {f.left_out:,} of {f.num_images:,} images every epoch, others each "
        "time; a smaller batch uses more of them",
    ),
    # The loss.
    Advice(
        "scale_low",
        lambda f: f.loss.s is not None and f.loss.s < f.least_s,
        "task.s {f.loss.s:g} with {f.num_classes:,} identities: even a perfect embedding gets a probability below "
        "0.9, so the loss stays high; 0.9 takes {f.least_s:.1f} (CosFace's bound)",
    ),
    Advice(
        "scale_high",
        lambda f: f.loss.s is not None and f.loss.s > 6 * f.adacos_s,
        "task.s {f.loss.s:g} with {f.num_classes:,} identities: AdaCos' fixed scale is sqrt(2) ln(C - 1) = "
        "{f.adacos_s:.1f} (CVPR 2019), and 64 is four times that for the 85,742 it is used with; a scale too large "
        "calls samples learnt at large angles; try {f.adacos_s:.0f} to {f.usual_s:.0f}",
    ),
    Advice(
        "margin_high",
        lambda f: (
            f.loss.margin in ("arcface", "combined", "curricularface")
            and f.loss.m >= 0.45
            and (f.num_classes < 1000 or f.per_identity < 5)
        ),
        "a margin of {f.loss.m:g} for {f.num_classes:,} identities of {f.per_identity:.1f} images: 0.5 was chosen on "
        "85,742 of 68; ArcFace was worse than plain softmax on 10,000 of 3 (pytorch-metric-learning#351); "
        "configs/lfw.yaml trains 1,184 identities with 0.2",
    ),
    Advice(
        "arcface_many",
        lambda f: f.loss.margin == "arcface" and f.num_classes >= 200_000,
        "margin arcface with {f.num_classes:,} identities: from WebFace4M (205,990) and Glint360K (360,232) on "
        "InsightFace trains cosface, m 0.4; WebFace4M, R100, IJB-C at 1e-4: AdaFace 97.39, CosFace 96.86, ArcFace "
        "96.77",
    ),
    Advice(
        "curricular_small",
        lambda f: f.loss.margin == "curricularface" and f.small,
        "margin curricularface with {f.backbone}: on MobileFaceNet it was worse than arcface, 87.27 against 88.39 "
        "(MegaFace rank 1, FaceX-Zoo)",
    ),
    Advice(
        "partial_fc",
        # With filter_above it is the published cure for wrong labels (InsightFace, WF12M-Flip-PFC-0.1).
        lambda f: f.loss.sample_rate < 1 and not f.loss.filtered and f.num_classes < 1_000_000,
        "task.sample_rate {f.loss.sample_rate:g} with {f.num_classes:,} identities gains little: 0.1 was faster by 4 "
        "% at 125,000 identities, 10 % at 250,000, 22 % at 500,000, 39 % at a million (InsightFace, 8 V100, R50), for "
        "0.2 points of MFR-ALL (WebFace12M, 94.69 to 94.49); take 1.0 while it fits into memory",
    ),
    Advice(
        "shallow",
        lambda f: f.loss.margin is not None and f.per_identity < 3,
        "{f.per_identity:.1f} images an identity: with two, softmax reached LFW 91.77 and semi-siamese training 99.38 "
        "(FaceX-Zoo, table 3.3); start from model.weights, or leave out single images (make_shards --min-images)",
    ),
    Advice(
        "no_positives",
        lambda f: f.loss.compares and f.plan not in ("per-identity", "mined", "clips", "pairs"),
        "data.plan {f.plan} with a loss that compares images of one identity: a batch of {f.batch:,} holds "
        "{f.chance_pairs:.2g} such pairs by chance; set data.plan to per-identity (FaceNet: about 40 images each, "
        "Hermans et al.: 4)",
    ),
    Advice(
        "triplet_from_scratch",
        lambda f: f.loss.compares and f.loss.margin is None and not f.loaded,
        "task {f.config.task.name} from scratch: a ResNet-34 with triplets on Glint360K had LFW 98.45 after 440,000 "
        "steps (facenet-pytorch-glint360k), a MobileFaceNet with ArcFace has above 99.5; train a margin first, then "
        "fine-tune it through model.weights",
    ),
    Advice(
        "contrastive_idle",
        lambda f: f.loss.contrastive is not None and f.sigmas > 3,
        "task.margin of the contrastive loss starts at a cosine of {f.loss.contrastive:.3g}; random impostors have 0 "
        "+- 1 / sqrt(D), so it lies {f.sigmas:.0f} standard deviations away and they give almost no gradient; lower "
        "task.keep_hardest, raise the margin, or take loss bce",
    ),
    # What the network is fed.
    Advice(
        "normalisation",
        lambda f: f.other_normalisation,
        "{f.normalisation}, model.weights was trained with {f.weights_wanted}: take those",
    ),
    Advice(
        "facenet_normalisation",
        lambda f: (
            f.model.weights is not None
            and f.weights_normalisation is None
            and f.backbone.startswith("inception_resnet_v1")
            and not f.normalised_by(127.5, 128.0)
        ),
        "{f.normalisation}: the public InceptionResNetV1 weights (VGGFace2, "
        "CASIA-WebFace) were trained with 127.5 and 128",
    ),
    Advice(
        "imagenet_normalisation",
        lambda f: f.model.pretrained and max(three(f.data.std)) > 100 and f.imagenet,
        "{f.normalisation}, timm's weights for {f.backbone} saw ImageNet's, 2.2 times the contrast: take data.mean "
        "[123.675, 116.28, 103.53] and std [58.395, 57.12, 57.375]",
    ),
    Advice(
        "bgr",
        lambda f: "adaface" in str(f.model.weights).lower(),
        "model.weights {f.model.weights} look like AdaFace's, which take BGR, and fastface feeds RGB: the wrong order "
        "works, only worse (frigate#23712: separation .480 for .501); reverse the input channels of the first "
        "convolution",
    ),
    Advice(
        "small_batch_statistics",
        lambda f: f.micro_batch < 16,
        "BatchNorm sees {f.micro_batch} images at a time: ResNet-50 on ImageNet had an error of 34.7 % with 2 a GPU, "
        "24.1 % with GroupNorm (Wu and He, 2018); raise train.micro_batch to 16 or more",
    ),
    Advice(
        "no_flip",
        lambda f: f.data.flip == 0,
        "data.flip 0: mirroring is free, and the one augmentation of InsightFace's recipes; set it to 0.5",
    ),
    Advice(
        "heavy_augmentation",
        lambda f: f.small and f.augmented >= 1,
        "data.augment changes an image {f.augmented:.1f} times on average, and {f.backbone} is small: MobileFaceNet "
        "on MS1MV3, IJB-C at 1e-4: none 92.80, erasing 92.06, colour 92.03, cutout 81.02, RandAugment 80.86 "
        "(cavaface); lower p, or take a larger network",
    ),
    Advice(
        "fp16",
        lambda f: f.config.train.precision == "fp16" and f.bf16,
        "train.precision fp16 on a device that has bf16: fp16 overflows above 65,504, needs loss scaling and is "
        "behind many reports of NaN (insightface#1555, #1664, #1715, #2200); bf16 is as fast: take auto",
    ),
)
"""Every row has a run for which it fires, and one for which it does not, in tests/test_advice.py."""
