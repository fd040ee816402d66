"""A card's crop -> the very picture that make_shards cut for the training."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fastface.conversion.faces import NOBODY
from fastface.data.context import Context, cut_context
from fastface.data.images import Rejected
from fastface.face_cut import Cut, cut_for


@pytest.mark.parametrize("crop", ["context-2.7", "context-4-stretched"])
def test_surroundings_are_cut_as_the_shards_were(crop: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    box = np.array([50.0, 40, 80, 78])
    cut = Cut((80, 80), crop)
    assert cut.needs_face
    context = Context.parse(crop)
    assert context is not None
    np.testing.assert_array_equal(cut(image, NOBODY._replace(box=box)), cut_context(image, box, context, (80, 80))[0])
    with pytest.raises(Rejected, match="not in the image"):
        cut(image, NOBODY._replace(box=box + 500))


@pytest.mark.parametrize(
    ("crop", "message"), [("context-2.7", "give --detector yunet:FILE"), ("contxt-2", "this version does not know")]
)
def test_a_crop_that_cannot_be_made_is_refused(crop: str, message: str) -> None:
    card = SimpleNamespace(input_size=(80, 80), crop=crop)
    with pytest.raises(ValueError, match=message):
        cut_for(card, "model", None)
