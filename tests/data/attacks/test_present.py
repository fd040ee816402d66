"""Every attack on a drawn face: the same bytes always, of the right kind, still that person."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fastface.data.synthetic import Face, Identity, Shot, render
from fastface.data.synthetic.attacks import VARIANTS, Key, present, retake
from fastface.data.synthetic.attacks.album import variants_of
from fastface.data.synthetic.attacks.present import CUTS, MASKS

SIDE = 48


@cache
def face(number: int, side: int = SIDE) -> Face:
    who = Identity.draw(0, number)
    return render(who, Shot.draw(0, who, 0), side)


def attack(variant: str, number: int = 1, image: int = 0, site: int = 0) -> np.ndarray:
    source = face(number, 2 * SIDE)
    return present(
        source.image, variant, Key(0, number, image), site=site, shape=(SIDE, SIDE), landmarks=source.landmarks,
        wearer=face(77)._replace(landmarks=face(number).landmarks),
    )  # fmt: skip


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlate the brightness of two pictures' middles."""
    middle = slice(SIDE // 4, 3 * SIDE // 4)
    rows = [x.astype(float).mean(axis=2)[middle, middle].ravel() for x in (a, b)]
    return float(np.corrcoef(rows)[0, 1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_attack_depends_on_nothing_but_picture_key_and_site(variant: str) -> None:
    keys = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    first = [attack(variant, *key) for key in keys]
    again = [attack(variant, *key) for key in reversed(keys)][::-1]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == np.uint8
        assert one.shape == (SIDE, SIDE, 3)
    assert len({one.tobytes() for one in first}) == len(keys)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_attack_differs_from_the_live_picture_and_shows_the_same_person(variant: str) -> None:
    number_like = []
    for number in (1, 2, 3):
        live, spoof = retake(face(number).image, Key(0, number, 0)), attack(variant, number)
        assert np.abs(live.astype(float) - spoof).mean() > 3
        number_like.append(likeness(live, spoof))
    worn = variant in CUTS or variant in MASKS  # with the wearer's eyes
    assert np.mean(number_like) > (0.5 if worn else 0.65)


@pytest.mark.parametrize("variant", [*CUTS, *MASKS])
def test_the_wearers_eyes_show_through_the_holes(variant: str) -> None:
    """A wearer painted green is seen there, and not on the cheeks between them and the mouth."""
    wearer = face(77)
    green = np.zeros_like(wearer.image) + np.array([20, 200, 20], np.uint8)
    source = face(1, 2 * SIDE)
    made = present(
        source.image, variant, Key(0, 1, 0), shape=(SIDE, SIDE), landmarks=source.landmarks,
        wearer=wearer._replace(image=green),
    ).astype(float)  # fmt: skip
    excess = made[..., 1] - made[..., [0, 2]].mean(axis=2)
    eyes = wearer.landmarks[:2]
    nose = eyes.mean(axis=0) + 0.35 * np.array([-(eyes[1] - eyes[0])[1], (eyes[1] - eyes[0])[0]])
    for x, y in eyes.astype(int).tolist():
        assert excess[y, x] > excess[int(nose[1]), int(nose[0])] + 30


@pytest.mark.parametrize("variant", VARIANTS)
def test_pictures_that_are_not_square_keep_their_shape(variant: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    points = np.array([(25, 15), (39, 15), (32, 22), (27, 30), (37, 30)])
    assert present(image, variant, Key(0, 0, 0), landmarks=points).shape == (40, 64, 3)
    assert retake(image, Key(0, 0, 0)).shape == (40, 64, 3)


def test_errors_name_what_is_wrong() -> None:
    image = face(1).image
    with pytest.raises(ValueError, match=r"'print-lazer'.*print-laser"):
        present(image, "print-lazer", Key(0, 0, 0))
    with pytest.raises(ValueError, match="'cut-eyes' needs the landmarks"):
        present(image, "cut-eyes", Key(0, 0, 0))
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\].*float64"):
        retake(image.astype(float), Key(0, 0, 0))
    with pytest.raises(ValueError, match=r"at least 24 px.*\[10, 48, 3\]"):
        retake(image[:10], Key(0, 0, 0))
    with pytest.raises(ValueError, match=r"attack 'prints'.*print"):
        variants_of("print,prints")


def test_names_stand_for_their_variants() -> None:
    assert variants_of("print,replay-phone") == {
        "print": ("print-laser", "print-inkjet", "print-photo"),
        "replay-phone": ("replay-phone",),
    }
    assert sorted(sum(variants_of("mask,cut,replay,print").values(), ())) == sorted(VARIANTS)
