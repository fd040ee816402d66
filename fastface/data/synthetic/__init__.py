"""A seed -> pictures of people who do not exist, with identity, box, landmarks and attributes known.

    identity = Identity.draw(seed=0, number=7)     who: anatomy, colours, habits        anatomy.py
    shot = Shot.draw(0, identity, image=3)         how: pose, expression, light, wear   shot.py
    face = render(identity, shot, size_px=64)      RGB, box, landmarks                  render.py and the rest
    data = photograph(face, shot)                  blur, noise, JPEG                    camera.py

Every draw is a pure function of (seed, identity, image), so any process can draw any picture in any order.
Both records are frozen dataclasses: dataclasses.replace(shot, yaw=20.0) draws the same scene with the head
turned, and a clip is a list of such shots.
"""

from fastface.data.synthetic.anatomy import Identity
from fastface.data.synthetic.camera import photograph
from fastface.data.synthetic.render import Face, render
from fastface.data.synthetic.shot import Shot, attributes

__all__ = ["Face", "Identity", "Shot", "attributes", "photograph", "render"]
