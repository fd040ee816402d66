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
TABLE = """
Aaron_Tippin mtcnn
69.58 65.93 160.74 193.12 0.9997 105.89 114.07 146.41 112.34 131.32 135.90 110.32 162.15 144.02 160.69
8.10 161.52 58.46 219.64 0.7581 26.54 180.60 45.79 178.42 37.26 188.28 28.38 201.84 44.79 200.30
Aaron_Tippin yunet
68.03 65.79 158.64 191.12 0.9215 103.88 113.05 143.75 111.22 132.20 133.92 107.73 157.35 141.13 156.24
Abdel_Aziz_Al-Hakim mtcnn
183.09 94.39 237.09 166.93 1.0000 208.51 116.59 231.19 118.45 225.67 132.16 209.75 147.12 227.91 148.59
61.62 69.46 157.26 191.36 1.0000 103.39 116.56 144.74 116.28 131.77 137.91 106.48 160.33 142.32 161.08
Abdel_Aziz_Al-Hakim yunet
63.80 65.09 154.40 192.66 0.9221 101.42 115.45 141.27 111.98 132.81 135.99 108.36 159.81 142.43 156.99
181.93 88.42 237.73 167.10 0.9179 208.11 117.50 230.22 117.92 226.80 131.88 210.74 145.96 228.04 146.62
"""


def _parsed(table: str) -> dict[str, dict[str, list[list[float]]]]:
    found: dict[str, dict[str, list[list[float]]]] = {}
    rows: list[list[float]] = []
    for line in table.strip().splitlines():
        if line[0].isalpha():
            person, program = line.split()
            rows = found.setdefault(f"{person}/{person}_0001.jpg", {}).setdefault(program, [])
        else:
            rows.append([float(value) for value in line.split()])
    return found


FOUND = _parsed(TABLE)


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
