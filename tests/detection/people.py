"""Photographs of Labeled Faces in the Wild, and what others' programs find in them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

from fastface.data.images import load_rgb

# Box, score, and landmarks of each face. mtcnn: facenet-pytorch 2.6.0 with keep_all, select_largest=False.
# yunet: OpenCV 5.0.0, FaceDetectorYN on yunet_n_dynamic.onnx, score 0.3, NMS 0.3. On 240 photographs (every
# 55th) mtcnn gave 283 faces here and there, one of which differs by more than 1e-4 px, where two boxes tie;
# yunet 316 faces, all within 1e-4 px.
FOUND = {
    "Aaron_Tippin/Aaron_Tippin_0001.jpg": {
        "mtcnn": [
            [69.5751, 65.9306, 160.7352, 193.1236, 0.9997]
            + [105.8913, 114.0704, 146.415, 112.3382, 131.3242, 135.8963, 110.3212, 162.1537, 144.0248, 160.6935],
            [8.0965, 161.5217, 58.4584, 219.6372, 0.7581]
            + [26.5379, 180.6025, 45.7862, 178.4227, 37.2648, 188.2833, 28.3761, 201.8366, 44.7935, 200.2992],
        ],
        "yunet": [
            [68.0334, 65.7938, 158.642, 191.1187, 0.9215]
            + [103.8776, 113.0532, 143.7513, 111.22, 132.2037, 133.9225, 107.7257, 157.3494, 141.128, 156.2423],
        ],
    },
    "Abdel_Aziz_Al-Hakim/Abdel_Aziz_Al-Hakim_0001.jpg": {
        "mtcnn": [
            [183.0904, 94.3933, 237.0913, 166.9251, 1.0]
            + [208.5119, 116.5907, 231.1879, 118.4484, 225.6669, 132.1608, 209.7484, 147.1151, 227.9115, 148.5869],
            [61.6216, 69.4626, 157.264, 191.3645, 1.0]
            + [103.3949, 116.5574, 144.739, 116.2759, 131.7721, 137.9147, 106.4755, 160.3283, 142.3223, 161.0765],
        ],
        "yunet": [
            [63.7959, 65.0897, 154.404, 192.6585, 0.9221]
            + [101.4164, 115.4453, 141.2727, 111.9752, 132.8094, 135.9857, 108.3567, 159.8075, 142.4311, 156.9916],
            [181.9305, 88.4183, 237.7309, 167.1028, 0.9179]
            + [208.1124, 117.4952, 230.2206, 117.9212, 226.8031, 131.8751, 210.7398, 145.9624, 228.0394, 146.616],
        ],
    },
}


def photographs(data: Path, names: list[str] | None = None, count: int = 0) -> dict[str, bytes]:
    """Read photographs by name, or the first `count` of the archive."""
    found: dict[str, bytes] = {}
    with tarfile.open(data / "lfw" / "images.tar") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name.endswith(".jpg") and (names is None or name in names):
                file = archive.extractfile(member)
                assert file
                found[name] = file.read()
            if len(found) == (count if names is None else len(names)):
                return found
    raise AssertionError(names)


def pixels(data: Path) -> dict[str, np.ndarray]:
    """Decode the photographs of FOUND."""
    return {name: load_rgb(image) for name, image in photographs(data, list(FOUND)).items()}


def agree(faces, expected: list[list[float]], tolerance: float) -> None:
    """Compare faces with rows of FOUND, in any order of equal scores."""
    rows = np.concatenate([faces.boxes, faces.scores[:, None], faces.landmarks.reshape(-1, 10)], axis=1)
    wanted = np.array(expected)
    assert rows.shape == wanted.shape
    for row in wanted:
        assert np.abs(rows - row).max(axis=1).min() < tolerance
