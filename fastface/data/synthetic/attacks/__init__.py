"""A picture of a face -> a picture of it printed or shown on a screen, and genuine and attacking clips.

    present(image, "print-laser", Key(seed=0, identity=7, image=3))    uint8 RGB in, uint8 RGB out    present.py
    retake(image, Key(0, 7, 4))                                        live, by the same camera       present.py

Whatever is before the camera, live or not, is photographed by the same code with the same draws (recapture.py): what
is left to tell them apart is what the instrument does. Every picture is a pure function of (image, key, site).
"""

from fastface.data.synthetic.attacks.present import VARIANTS, Key, present, retake

__all__ = ["VARIANTS", "Key", "present", "retake"]
