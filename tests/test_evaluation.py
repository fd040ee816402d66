import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.data.image_sets import BytesImages, open_images
from fastface.data.images import ImageSpec
from fastface.data.sources.bin import read_bin
from fastface.evaluation import embed_images, evaluate_pairs, format_report, pair_scores, raw_pixels
from fastface.metrics.pairs import Pairs, read_pairs, resolve_pairs, sample_pairs


def encoded(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def people(num: int = 12, each: int = 4, side: int = 16) -> tuple[BytesImages, np.ndarray]:
    """Make pictures of one noise pattern a person, each with noise of its own."""
    rng = np.random.default_rng(0)
    patterns = np.repeat(rng.normal(128, 40, (num, side, side, 3)), each, axis=0)
    pictures = (patterns + rng.normal(0, 30, patterns.shape)).clip(0, 255).astype(np.uint8)
    images = BytesImages([encoded(picture) for picture in pictures])
    labels = np.repeat(np.arange(num), each)
    images.identities = labels
    return images, labels


class Counting:
    """An embedder that remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        return raw_pixels()(images)


def test_each_picture_is_embedded_once_and_in_its_place() -> None:
    images, _ = people()
    ids = np.array([5, 0, 5, 47, 3, 0])
    embed = Counting()
    rows = embed_images(images, ids, embed, batch=3)
    assert embed.batches == [3, 1]
    for row, i in zip(rows, ids.tolist(), strict=True):
        assert row == pytest.approx(raw_pixels()(images.load(i)[None])[0])


def shared(world: int, run: Callable[[int, Callable[[np.ndarray], list[np.ndarray]]], np.ndarray]) -> list[np.ndarray]:
    """Run all ranks one after the other, twice: the first time only to collect what they would send."""
    sent: dict[int, np.ndarray] = {}

    class Sent(Exception):
        pass

    for rank in range(world):

        def send(rows: np.ndarray, rank: int = rank) -> list[np.ndarray]:
            sent[rank] = rows
            raise Sent

        with pytest.raises(Sent):
            run(rank, send)
    assert len({(rows.dtype, rows.shape[1:]) for rows in sent.values()}) == 1, "a collective needs one width"
    return [run(rank, lambda _: [sent[r] for r in range(world)]) for rank in range(world)]


@pytest.mark.parametrize("world", [2, 3, 7])
def test_any_number_of_processes_gives_the_same_bits(world: int) -> None:
    """Seven processes share three batches: four of them have no picture at all."""
    images, _ = people()
    ids = np.random.default_rng(1).permutation(48)[:40]
    images._images[int(ids[7])] = b"broken"
    alone = embed_images(images, ids, raw_pixels(), batch=16)
    assert np.isnan(alone).all(axis=1).sum() == 1

    def run(rank: int, gather: Callable[[np.ndarray], list[np.ndarray]]) -> np.ndarray:
        return embed_images(images, ids, raw_pixels(), batch=16, rank=rank, world=world, gather=gather)

    for rows in shared(world, run):
        assert rows.tobytes() == alone.tobytes()


def test_several_processes_need_a_gather() -> None:
    images, _ = people(2)
    with pytest.raises(ValueError, match="need a gather"):
        embed_images(images, np.arange(8), raw_pixels(), world=2)


def test_pairs_become_figures_with_what_stands_behind_them() -> None:
    images, labels = people()
    pairs = sample_pairs(labels, 200, num_folds=3)
    result = evaluate_pairs(images, pairs, raw_pixels(), batch=5)
    rows = raw_pixels()(np.stack([images.load(i) for i in range(len(images))]))
    assert np.array_equal(result.scores, pair_scores(rows, pairs.first, pairs.second))
    genuine, impostors = result.scores[pairs.same], result.scores[~pairs.same]
    wins = np.mean([(u > v) + 0.5 * (u == v) for u in genuine for v in impostors])
    assert result.metrics["auc"] == pytest.approx(wins)
    assert result.metrics["auc"] > 0.95
    assert result.details["folds"] == {"given": True, "number": 3, "pairs_with_a_person_of_another_fold": 0}
    assert result.details["num_images"] == len(set(pairs.first.tolist()) | set(pairs.second.tolist()))
    assert "accuracy" in format_report({"raw pixels": result})


def test_folds_are_made_where_the_pairs_have_none() -> None:
    images, labels = people()
    pairs = sample_pairs(labels, 100, num_folds=0)
    result = evaluate_pairs(images, pairs, raw_pixels())
    assert result.details["folds"]["given"] is False
    assert result.details["folds"]["number"] > 1


@pytest.mark.parametrize("centre", [False, True])
def test_a_picture_that_fails_is_a_non_match_and_named(centre: bool) -> None:
    images, labels = people()
    images._images[2] = b"no picture"
    pairs = sample_pairs(labels, 1000)
    touched = (pairs.first == 2) | (pairs.second == 2)

    def embed(batch: np.ndarray) -> np.ndarray:
        rows = raw_pixels()(batch)
        rows[[np.array_equal(picture, images.load(9)) for picture in batch]] = 0
        return rows

    result = evaluate_pairs(images, pairs, embed, centre=centre)
    touched |= (pairs.first == 9) | (pairs.second == 9)
    assert np.array_equal(np.isnan(result.scores), touched)
    assert result.details["failures"]["genuine"] == int((touched & pairs.same).sum()) == 6
    failed = result.details["failed_images"]
    assert failed["number"] == 2
    assert [entry["name"] for entry in failed["first"]] == [f"{2:09d}", f"{9:09d}"]
    assert failed["first"][1]["reason"] == "its embedding is zero or not finite"
    assert result.metrics["tar_1e-2"] <= 1 - 6 / int(pairs.same.sum())


def test_intervals_allow_for_persons_where_they_are_known() -> None:
    images, labels = people(30)
    pairs = sample_pairs(labels, 200, num_folds=3)
    embed = raw_pixels((2, 2))
    known = evaluate_pairs(images, pairs, embed)
    assert known.details["persons"] == {"known": True, "why_not": None}
    assert known.details["intervals"]["persons"] == 30
    assert "for 30 persons who recur" in format_report({"x": known})
    assert "draws of persons" in format_report({"x": known})
    images.identities = np.arange(len(labels))  # as of a .bin file
    unknown = evaluate_pairs(images, pairs._replace(fold=pairs.fold), embed)
    assert unknown.metrics == known.metrics
    assert unknown.details["intervals"]["persons"] is None
    assert "genuine pairs show two persons" in format_report({"x": unknown})
    assert "draws of persons" not in format_report({"x": unknown})


def test_drawing_persons_can_be_left_out() -> None:
    images, labels = people()
    result = evaluate_pairs(images, sample_pairs(labels, 100), raw_pixels((2, 2)), intervals=False)
    assert result.details["intervals"]["bootstrap"] is None
    assert "effective" in result.details["accuracy"]["interval_method"]


def test_subtracting_the_mean_finds_what_an_offset_hides() -> None:
    images, labels = people()
    pairs = sample_pairs(labels, 400)

    def embed(batch: np.ndarray) -> np.ndarray:
        return raw_pixels()(batch) + np.float32(3.0)

    plain, centred = (evaluate_pairs(images, pairs, embed, centre=centre) for centre in (False, True))
    assert plain.scores.min() > 0.99
    assert centred.scores[~pairs.same].mean() == pytest.approx(0, abs=0.1)
    assert centred.metrics["auc"] > 0.95
    assert centred.details["centre"] is True


def test_compat_scores_by_their_rule() -> None:
    images, labels = people()
    pairs = sample_pairs(labels, 100, num_folds=3)
    result = evaluate_pairs(images, pairs, raw_pixels(), compat="insightface")
    assert result.metrics["acc"] == result.details["compat"]["acc"]
    with pytest.raises(ValueError, match="knows no mean subtraction"):
        evaluate_pairs(images, pairs, raw_pixels(), compat="insightface", centre=True)


def test_pictures_of_two_sizes_are_refused_within_and_across_batches() -> None:
    images = BytesImages([encoded(np.zeros((16, 16 + 8 * (i == 1), 3), np.uint8)) for i in range(2)])
    for batch in (1, 2):
        with pytest.raises(ValueError, match="differ in size"):
            embed_images(images, np.arange(2), raw_pixels(), batch)


def test_no_readable_picture_is_an_error_with_its_reason() -> None:
    images = BytesImages([b"", b"GIF89a"])
    with pytest.raises(ValueError, match="None of the pictures of the pair file can be read: 0 bytes"):
        embed_images(images, np.arange(2), raw_pixels())


def test_an_embedder_of_the_wrong_shape_is_refused() -> None:
    images, _ = people(2)
    with pytest.raises(ValueError, match=r"must give \[B, D\]"):
        embed_images(images, np.arange(3), lambda batch: batch)


def test_raw_pixels_are_the_correlation_of_two_pictures() -> None:
    images, _ = people(2)
    a, b = (images.load(i) for i in (0, 5))
    rows = raw_pixels()(np.stack([a, b]))
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1])
    expected = np.corrcoef(a.reshape(-1).astype(float), b.reshape(-1).astype(float))[0, 1]
    assert pair_scores(rows, np.array([0]), np.array([1]))[0] == pytest.approx(expected, abs=1e-6)
    assert raw_pixels((8, 4))(a[None]).shape == (1, 8 * 4 * 3)
    flat = raw_pixels()(np.full((1, 8, 8, 3), 77, np.uint8))
    assert not flat.any(), "a picture of one colour has no direction and counts as a failure"


def test_raw_pixels_verify_lfw_a_little(data: Path) -> None:
    """Two hundred pairs of real faces: better than chance, far from a recogniser."""
    images = open_images(data / "lfw112" / "images.tar", ImageSpec(size=(56, 56)))
    pairs = resolve_pairs(read_pairs(data / "lfw112" / "pairs.txt"), images)
    few = Pairs(*(column[::30] for column in pairs if column is not None))
    result = evaluate_pairs(images, few, raw_pixels())
    assert result.details["failed_images"]["number"] == 0
    assert 0.55 < result.metrics["auc"] < 0.9
    assert result.details["folds"]["number"] == 10


def test_a_genuine_pair_file_of_one_kind_is_scored(data: Path) -> None:
    encoded_images, same = read_bin(data / "records" / "small_lfw.bin")
    order = np.arange(len(encoded_images))
    pairs = Pairs(order[::2], order[1::2], same)
    assert same.all()
    with pytest.raises(ValueError, match="all 10 pairs are genuine"):
        evaluate_pairs(BytesImages(encoded_images), pairs, raw_pixels())
    result = evaluate_pairs(BytesImages(encoded_images), pairs, raw_pixels(), one_kind=True)
    assert result.scores.shape == (10,)
    assert 0 <= result.metrics["acc"] <= 1
