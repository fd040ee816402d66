"""Files of every kind become the pixels they show, upright; what fits keeps its bytes; the rest is named."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.data.headers import REASONS, read_header
from fastface.data.images import ImageSpec, Rejected, decode_jpeg, load_rgb, prepare
from tests.data import badfiles
from tests.data.badfiles import encode, photo

KEPT = {
    "plain.jpg", "UPPER.JPG", "with space.jpeg", "été.jpg", "jpeg-inside.png", "restarts.jpg", "4-4-4.jpg",
    "4-2-2.jpg", "grey.jpg", "profile.jpg", "trailing.jpg", "exif-1.jpg", "wide.jpg",
}  # fmt: skip
FLIPS = {  # EXIF orientation -> what the camera did to the upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.rot90(a[:, ::-1]),
    6: lambda a: np.rot90(a),
    7: lambda a: np.rot90(a[::-1]),
    8: lambda a: np.rot90(a, -1),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("odd")
    return {name: (folder / name).read_bytes() for name in badfiles.write_odd_but_good(folder)}


def expected(name: str, data: bytes) -> np.ndarray:
    """Decode with Pillow, and apply the rules that Pillow leaves open."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        if name == "grey-16.png":
            return np.repeat(photo()[..., :1], 3, axis=2)
        if "alpha" in name or "clear" in name or name == "rgba-16.png":
            black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
            return np.asarray(Image.alpha_composite(black, picture.convert("RGBA")).convert("RGB"))
        turns = {"turned.png": 6, "turned.webp": 8}
        orientation = turns.get(name) or (int(name[5]) if name.startswith("exif-") else 1)
        undo = {6: 8, 8: 6}.get(orientation, orientation)  # all but the quarter turns undo themselves
        return FLIPS[undo](np.asarray(picture.convert("RGB")))


def test_odd_files_show_what_they_show(odd: dict[str, bytes]) -> None:
    assert len(odd) >= 40
    for name, data in odd.items():
        image, wanted = load_rgb(data), expected(name, data)
        assert image.shape == wanted.shape, name
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - wanted).max() <= (1 if "alpha" in name else 0), name


def test_odd_files_that_fit_keep_their_bytes_and_the_rest_are_encoded(odd: dict[str, bytes]) -> None:
    for name, data in odd.items():
        prepared = prepare(data, ImageSpec())
        assert prepared.kept == (name in KEPT), name
        assert (prepared.data == data) == prepared.kept, name
        assert prepared.extension == "jpg"
        header = read_header(prepared.data)
        assert header.plain, name
        assert (header.format, header.orientation) == ("jpeg", 1), name
        assert (header.width, header.height) == (prepared.width, prepared.height), name
        error = np.abs(decode_jpeg(prepared.data).astype(int) - load_rgb(data)).mean()
        assert error < (0.01 if prepared.kept else 3 if "palette" in name else 30 if "one-bit" in name else 2.5), name


def test_every_bad_file_is_refused_for_its_reason(tmp_path: Path) -> None:
    reasons = badfiles.write_bad_files(tmp_path)
    tried = {name: reason for name, reason in reasons.items() if reason in REASONS}
    assert len(tried) >= 30
    for name, reason in tried.items():
        with pytest.raises(Rejected) as caught:
            prepare((tmp_path / name).read_bytes(), ImageSpec())
        assert caught.value.reason == reason, f"{name}: {caught.value}"
        assert str(caught.value), name


def test_a_refusal_survives_the_way_between_processes() -> None:
    again = pickle.loads(pickle.dumps(Rejected("truncated", "ends at byte 7")))
    assert (again.reason, str(again)) == ("truncated", "ends at byte 7")


@pytest.mark.parametrize("progressive", [False, True])
def test_no_prefix_of_a_jpeg_is_accepted(progressive: bool) -> None:
    data = encode(photo(40, 32), quality=60, progressive=progressive)
    for end in range(len(data)):
        with pytest.raises(Rejected):
            prepare(data[:end], ImageSpec())
    assert prepare(data, ImageSpec()).width == 40


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_no_prefix_of_a_png_or_webp_is_accepted(kind: str) -> None:
    data = encode(photo(24, 16), kind)
    for end in range(len(data)):
        with pytest.raises(Rejected):
            load_rgb(data[:end])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_turns_pixels_upright(orientation: int, order: str) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = np.ascontiguousarray(FLIPS[orientation](upright))
    data = badfiles.with_exif(encode(stored, quality=100, subsampling=0), orientation, order)
    image = load_rgb(data)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() < 20
    assert prepare(data, ImageSpec()).kept == (orientation == 1)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(value: int) -> None:
    data = badfiles.with_exif(encode(photo()), value)
    assert prepare(data, ImageSpec()).kept


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    image = load_rgb(badfiles.png16(values))
    assert np.array_equal(image[..., 0], (values // 256).astype(np.uint8))
    colour = np.stack([values, values[::-1], values.T], axis=-1)
    assert np.array_equal(load_rgb(badfiles.png16(colour)), (colour // 256).astype(np.uint8))


def test_cmyk_is_the_product_of_what_colour_and_black_let_through() -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, 8:] = (0, 255, 0, 128)  # full magenta, half black
    image = load_rgb(encode(Image.fromarray(ink, "CMYK"), quality=100, subsampling=0)).astype(int)
    assert np.abs(image[:, :7] - 255).max() <= 3
    assert np.abs(image[:, 9:] - (127, 0, 127)).max() <= 4


def slow_resize(image: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Resize by the triangle filter of antialiased bilinear scaling, one output pixel at a time."""

    def weights(low: float, high: float, count: int, length: int) -> np.ndarray:
        scale = (high - low) / count
        reach = max(scale, 1.0)
        out = np.zeros((count, length))
        for k in range(count):
            centre = low + (k + 0.5) * scale
            for j in range(length):
                out[k, j] = max(0.0, 1 - abs(j + 0.5 - centre) / reach)
            out[k] /= out[k].sum()
        return out

    across = weights(box[0], box[2], size[0], image.shape[1])
    down = weights(box[1], box[3], size[1], image.shape[0])
    return np.stack([down @ image[..., c].astype(np.float64) @ across.T for c in range(3)], axis=-1)


@pytest.mark.parametrize(
    ("width", "height", "spec", "box", "region"),
    [
        (60, 60, ImageSpec((20, 20)), None, (0, 0, 60, 60)),
        (60, 60, ImageSpec((20, 20), crop=0.5), None, (15, 15, 45, 45)),
        (75, 60, ImageSpec((20, 20), crop=0.45), None, (24, 16.5, 51, 43.5)),  # 33.75 x 27, then its square
        (80, 60, ImageSpec((24, 24)), None, (10, 0, 70, 60)),
        (60, 80, ImageSpec((24, 12)), None, (0, 25, 60, 55)),
        (40, 30, ImageSpec((64, 48)), None, (0, 0, 40, 30)),
        (60, 60, ImageSpec((16, 16)), (10.5, 20, 30.5, 40), (10.5, 20, 30.5, 40)),
        (60, 60, ImageSpec((16, 16)), (-9, -9, 31, 31), (0, 0, 31, 31)),
        (60, 60, ImageSpec((16, 16), crop=0.5), (0, 0, 40, 40), (10, 10, 30, 30)),
    ],
)
def test_cut_and_resize_agree_with_a_slow_loop(
    width: int, height: int, spec: ImageSpec, box: tuple | None, region: tuple
) -> None:
    image = photo(width, height)
    data = encode(image, "PNG")
    found = load_rgb(data, spec, None if box is None else np.array(box, np.float32))
    assert spec.size is not None
    assert found.shape == (spec.size[1], spec.size[0], 3)
    assert np.abs(found - slow_resize(image, region, spec.size)).max() <= 1.01  # Pillow rounds after each axis


def test_without_size_the_part_is_copied() -> None:
    image = photo(50, 40)
    data = encode(image, "PNG")
    assert np.array_equal(load_rgb(data, ImageSpec(crop=0.5)), image[10:30, 12:38])
    box = np.array([3, 4, 33, 24], np.float32)
    assert np.array_equal(load_rgb(data, ImageSpec(), box), image[4:24, 3:33])


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((5, 5, 5, 20), "bad-box"),
        ((9, 9, 3, 20), "bad-box"),
        ((float("nan"), 0, 20, 20), "bad-box"),
        ((100, 100, 140, 140), "bad-box"),
        ((0, 0, 6, 30), "too-small"),
    ],
)
def test_boxes_that_hold_no_face_are_refused(box: tuple, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        prepare(encode(photo(60, 60)), ImageSpec((16, 16)), np.array(box, np.float32))
    assert caught.value.reason == reason


def test_quality_size_crop_and_box_make_new_bytes() -> None:
    data = encode(photo(), quality=90)
    assert prepare(data, ImageSpec((112, 112))).kept
    assert prepare(data, ImageSpec(crop=1.0)).kept
    smaller = prepare(data, ImageSpec(quality=20))
    assert not smaller.kept
    assert len(smaller.data) < len(prepare(data, ImageSpec(quality=95)).data)
    assert not prepare(data, ImageSpec((96, 112))).kept
    assert not prepare(data, ImageSpec(crop=0.9)).kept
    assert not prepare(data, ImageSpec(), np.array([0, 0, 112, 112])).kept
    assert prepare(data, ImageSpec(quality=70)) == prepare(data, ImageSpec(quality=70))


def test_lossless_writes_png_with_the_same_pixels(odd: dict[str, bytes]) -> None:
    for name, data in odd.items():
        prepared = prepare(data, ImageSpec(lossless=True))
        assert prepared.extension == "png"
        assert np.array_equal(load_rgb(prepared.data), load_rgb(data)), name
        assert prepared.kept == (name in ("png-inside.jpg", "grey.png")), name
    assert prepare(odd["png-inside.jpg"], ImageSpec(lossless=True)).data == odd["png-inside.jpg"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": (0, 112)}, "size"),
        ({"size": (112, 20000)}, "size"),
        ({"crop": 0.0}, "crop"),
        ({"crop": 1.5}, "crop"),
        ({"quality": 101}, "quality"),
        ({"quality": 90, "lossless": True}, "lossless"),
    ],
)
def test_impossible_specs_are_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ImageSpec(**options)


def test_decode_jpeg_takes_any_buffer_and_gives_grey_three_channels() -> None:
    data = encode(Image.fromarray(photo()).convert("L"))
    image = decode_jpeg(np.frombuffer(data, np.uint8))
    assert image.shape == (112, 112, 3)
    assert np.array_equal(image, decode_jpeg(memoryview(data)))
    assert np.array_equal(image[..., 0], image[..., 2])
    with pytest.raises(Rejected, match="Premature"):
        decode_jpeg(data[:-2])


def test_real_faces_of_the_right_size_keep_their_bytes(data: Path) -> None:
    from fastface.data.sources.kinds import open_source

    source = open_source("folder", data / "lfw" / "images.tar")[""]
    for i in range(0, len(source), 2000):
        found = source.read(i)
        assert prepare(found, ImageSpec((250, 250)))[:5] == (found, 250, 250, True, "jpg")
        cut = prepare(found, ImageSpec((112, 112), crop=0.45))
        assert (cut.width, cut.height, cut.kept) == (112, 112, False)
        exact = slow_resize(decode_jpeg(found), (68.75, 68.75, 181.25, 181.25), (112, 112))
        assert np.abs(load_rgb(found, ImageSpec((112, 112), crop=0.45)) - exact).max() <= 1.01
