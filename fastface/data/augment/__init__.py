"""Slots -> Draws -> changed pixels: drawn once per slot on the host, applied alike by every backend."""

from fastface.data.augment.apply import HostWork, apply_on_host, apply_reference
from fastface.data.augment.draw import Augment, Draws
from fastface.data.augment.points import transform_boxes, transform_points

__all__ = ["Augment", "Draws", "HostWork", "apply_on_host", "apply_reference", "transform_boxes", "transform_points"]
