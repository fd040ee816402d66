"""MTCNN: the faces that facenet-pytorch finds with the same weights, in images of every kind and size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastface.detection import DetectorSpec
from fastface.detection.area import AreaTable
from fastface.models.mtcnn import CELL, FACTOR, Mtcnn, ONet, PNet, RNet, load_stage
from tests.detection.people import FOUND, agree, pixels


@pytest.fixture(scope="module")
def weights(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("data") / "weights" / "mtcnn"


@pytest.fixture(scope="module")
def detector(weights: Path) -> Mtcnn:
    found = DetectorSpec.parse(f"mtcnn:{weights}").open()
    assert isinstance(found, Mtcnn)
    return found


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    return pixels(request.getfixturevalue("data"))


def test_faces_are_those_of_facenet_pytorch(detector: Mtcnn, images: dict[str, np.ndarray]) -> None:
    for name, image in images.items():
        agree(detector.detect([image])[0], FOUND[name]["mtcnn"], 0.01)


def test_images_of_several_sizes_share_the_passes(detector: Mtcnn, images: dict[str, np.ndarray]) -> None:
    several = [*images.values(), *(image[20:, 30:] for image in images.values())]
    together, alone = detector.detect(several), [detector.detect([image])[0] for image in several]
    for one, other in zip(together, alone, strict=True):
        for a, b in zip(one, other, strict=True):
            assert np.allclose(a, b, atol=1e-3)
    assert detector.detect([]) == []


def test_a_result_depends_on_nothing_but_the_image(detector: Mtcnn, images: dict[str, np.ndarray]) -> None:
    first, second = images.values()
    before = detector.detect([first])[0]
    detector.detect([second])
    assert all(np.array_equal(a, b) for a, b in zip(before, detector.detect([first])[0], strict=True))


@pytest.mark.parametrize("shape", [(8, 8), (12, 12), (13, 200), (19, 19), (60, 60)])
def test_images_without_a_face_have_none(detector: Mtcnn, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for image in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
        boxes, scores, landmarks = detector.detect([image])[0]
        assert (boxes.shape, scores.shape, landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


def test_grey_large_and_cut_off_faces_are_found(detector: Mtcnn, images: dict[str, np.ndarray]) -> None:
    image = images["Aaron_Tippin/Aaron_Tippin_0001.jpg"]
    box = FOUND["Aaron_Tippin/Aaron_Tippin_0001.jpg"]["mtcnn"][0][:4]
    grey = np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert np.abs(detector.detect([grey])[0].boxes[0] - box).max() < 12
    large = image.repeat(6, axis=0).repeat(6, axis=1)  # 1500 px: is shrunk to look at, and comes back in its px
    assert np.abs(detector.detect([large])[0].boxes[0] / 6 - box).max() < 12
    half = image[:, 112:]
    found = detector.detect([half])[0]
    assert all(np.isfinite(each).all() for each in found)


# The parts


def test_cells_are_those_of_adaptive_pooling() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (57, 83, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 83, 57], [10, 5, 40, 50], [3, 3, 4, 4], [60, 1, 83, 9]])
    for size in ((24, 24), (48, 48), (7, 5), (58, 84)):
        means = AreaTable(image).means(boxes, size)
        for (x0, y0, x1, y1), mean in zip(boxes, means, strict=True):
            part = torch.from_numpy(image[y0:y1, x0:x1]).permute(2, 0, 1).double()
            expected = (torch.nn.functional.adaptive_avg_pool2d(part, size) - 127.5) / 128
            assert np.allclose(mean, expected.permute(1, 2, 0), atol=1e-6)


def test_sums_that_run_over_still_have_the_right_differences() -> None:
    table = AreaTable(np.full((50, 60, 3), 255, np.uint8))
    table.sums += np.uint32(2**32 - 50_000)  # as they are far inside a white image of 17 million pixels
    assert table.sums[0, 0, 0] > table.sums[-1, -1, 0]
    assert np.allclose(table.means(np.array([[1, 2, 60, 50]]), (12, 12)), 127.5 / 128)


def test_the_pyramid_proposes_cells_where_p_net_sees_a_face() -> None:
    """With a P-Net that always sees one, the boxes are the cells of all levels, before suppression and moves."""

    class Always(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> object:
            rows, columns = ((side - CELL) // 2 + 1 for side in pixels.shape[2:])
            levels.append((pixels.shape[2], pixels.shape[3]))
            face = torch.zeros(len(pixels), 2, rows, columns)
            face[:, 1, rows // 2, columns // 2] = 9
            return type("Heads", (), {"face": face, "box": torch.zeros(len(pixels), 4, rows, columns)})

    levels: list[tuple[int, int]] = []
    cascade = Mtcnn(Always(), RNet(), ONet(), min_face_px=20, thresholds=(0.9, 0.7, 0.7))
    boxes = cascade.propose([AreaTable(np.zeros((90, 130, 3), np.uint8))])[0]
    expected, scale = [], CELL / 20
    while 90 * scale >= CELL:
        height, width = int(90 * scale + 1), int(130 * scale + 1)
        row, column = ((side - CELL) // 2 + 1 for side in (height, width))
        x, y = 2 * (column // 2), 2 * (row // 2)
        expected.append([(x + 1) // scale, (y + 1) // scale, (x + CELL) // scale, (y + CELL) // scale])
        assert (height, width) in levels
        scale *= FACTOR
    assert len(levels) == len(expected) == 5
    assert 1 <= len(boxes) <= len(expected)
    centres = (np.array(expected)[:, :2] + np.array(expected)[:, 2:]) / 2
    for box in boxes:
        assert np.allclose(box[2] - box[0], box[3] - box[1])
        assert np.abs(centres - (box[:2] + box[2:]) / 2).max(axis=1).min() < 1e-4


def test_public_names_and_ours_load_and_others_are_named(weights: Path, tmp_path: Path) -> None:
    for name, net in (("pnet", PNet()), ("rnet", RNet()), ("onet", ONet())):
        load_stage(net, weights / f"{name}.pt")
        torch.save(net.state_dict(), tmp_path / f"{name}.pt")
        again = load_stage(type(net)(), tmp_path / f"{name}.pt")
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert sum(p.numel() for p in PNet().parameters()) == 6632
    assert sum(p.numel() for p in RNet().parameters()) == 100178
    assert sum(p.numel() for p in ONet().parameters()) == 389040
    with pytest.raises(ValueError, match=r"rnet\.pt does not hold the weights of MTCNN's PNet"):
        load_stage(PNet(), weights / "rnet.pt")
    (tmp_path / "bad.pt").write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match=r"bad\.pt cannot be read as plain tensors"):
        load_stage(PNet(), tmp_path / "bad.pt")
