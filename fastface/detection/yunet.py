"""Images -> faces with YuNet (Wu, Peng, Yu 2023, doi 10.1007/s11633-023-1423-y), an .onnx file of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastface.data.align import shrunk
from fastface.detection.boxes import suppress
from fastface.detection.found import Found

STRIDES = (8, 16, 32)
LEAST = 0.3  # smallest score reported
OVERLAP = 0.3  # of the suppression; OpenCV's default
LONGEST_PX = 640  # what it was trained at; larger images are shrunk to it, which bounds the time (10 ms)
HEADS = tuple(f"{head}_{stride}" for head in ("cls", "obj", "bbox", "kps") for stride in STRIDES)


class YuNet:
    """The network and the decoding of its outputs; images of one padded size go through it together."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1  # conversion has a process per core
        try:
            self.session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, which share no base
            raise ValueError(f"{file} is not an ONNX file that onnxruntime reads: {str(error).strip()}") from None
        inputs = self.session.get_inputs()
        missing = sorted(set(HEADS) - {output.name for output in self.session.get_outputs()})
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or missing:
            raise ValueError(
                f"{file} is no YuNet: it lacks the outputs {', '.join(missing) or 'of one image input'}; give a "
                "face_detection_yunet_*.onnx or yunet_*.onnx file of 2022 or later"
            )
        self.input, shape = inputs[0].name, inputs[0].shape
        # (height, width) where the file takes one size only
        self.fixed = (shape[2], shape[3]) if isinstance(shape[2], int) and isinstance(shape[3], int) else None
        self.together = not isinstance(shape[0], int)

    def detect(self, images: Sequence[np.ndarray]) -> list[Found]:
        """Find faces in uint8 RGB images [H, W, 3] of any sizes."""
        longest = min(self.fixed) if self.fixed else LONGEST_PX
        small = [shrunk(image, longest) for image in images]
        padded = [self._pad(image) for image, _ in small]
        faces: list[Found | None] = [None] * len(images)
        for shape in dict.fromkeys(each.shape for each in padded):
            numbers = [i for i, each in enumerate(padded) if each.shape == shape]
            for group in [numbers] if self.together else [[i] for i in numbers]:
                outputs = self.session.run(list(HEADS), {self.input: np.stack([padded[i] for i in group])})
                heads = dict(zip(HEADS, outputs, strict=True))
                for k, i in enumerate(group):
                    found = decode({name: np.asarray(values)[k] for name, values in heads.items()}, shape[1:])
                    faces[i] = found.moved(small[i][1])
        return [each for each in faces if each is not None]

    def _pad(self, image: np.ndarray) -> np.ndarray:
        """Pad at the right and below with black to what the network takes: float32 BGR [3, H, W], 0 to 255."""
        height, width = self.fixed or (-(-side // 32) * 32 for side in image.shape[:2])
        pixels = np.zeros((3, height, width), np.float32)
        pixels[:, : image.shape[0], : image.shape[1]] = image[:, :, ::-1].transpose(2, 0, 1)
        return pixels


def decode(heads: dict[str, np.ndarray], size: tuple[int, int]) -> Found:
    """Turn the outputs for one image of (height, width) px into faces.

    Each place of a grid of 8, 16 and 32 px tells, relative to its corner and in strides: the centre and the log
    of the sides of a box, and five points. The score is the root of class times objectness.
    """
    boxes, scores, points = [], [], []
    for stride in STRIDES:
        row, column = np.divmod(np.arange(size[0] // stride * (size[1] // stride)), size[1] // stride)
        corner = np.stack([column, row], axis=1).astype(np.float32)
        surely = np.clip(heads[f"cls_{stride}"], 0, 1) * np.clip(heads[f"obj_{stride}"], 0, 1)
        score = np.sqrt(surely[:, 0])
        some = score >= LEAST
        box, point = heads[f"bbox_{stride}"][some], heads[f"kps_{stride}"][some]
        centre, half = (corner[some] + box[:, :2]) * stride, np.exp(box[:, 2:]) * np.float32(stride / 2)
        boxes.append(np.concatenate([centre - half, centre + half], axis=1))
        points.append((point.reshape(-1, 5, 2) + corner[some][:, None]) * stride)
        scores.append(score[some])
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    keep = suppress(all_boxes, all_scores, OVERLAP)
    return Found(all_boxes[keep], all_scores[keep], np.concatenate(points)[keep])
