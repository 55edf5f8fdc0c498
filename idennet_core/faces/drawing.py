"""Draw one grey face: a person's traits, facial actions and a view in; a picture and its five true points out.

The face lives in *units*: the origin is midway between the eyes, x runs to the right of the picture, y down, and
one unit is half the nominal distance between the eye centres. Soft shading comes from a relief (a dome and bumps,
lit by one light); everything with an edge is an anti-aliased polygon through a spline. Both are drawn on a patch of
`UNIT` pixels a unit, which a similarity then carries into the picture. Sides are the subject's: side 0 is the right
one, at negative x.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from idennet_core.faces.people import ACTIONS, Person
from idennet_core.faces.sketching import (
    COARSE,
    GRAIN_ZERO,
    HEIGHT,
    LEFT,
    SHIFT,
    TOP,
    UNIT,
    WIDTH,
    Floats,
    Picture,
    View,
    between,
    blend,
    coarse_grid,
    curve,
    ellipse,
    grain,
    mirror,
    moved,
    path,
    photograph,
    refined,
    spline,
    strands,
)


def draw(person: Person, actions: Floats, view: View) -> tuple[Picture, Floats]:
    """A picture of a person performing facial actions, and its five true points.

    `actions` is [2, len(ACTIONS)], one row a side (the subject's right first), 1 being a full action.
    Returns the picture, uint8 [height, width], and the points [5, 2] in its pixels: right eye, left eye, nose tip,
    right mouth corner, left mouth corner. Raises ValueError for actions of another shape.
    """
    if actions.shape != (2, len(ACTIONS)):
        raise ValueError(f"actions must be [2, {len(ACTIONS)}], but got {list(actions.shape)}: give one row a side")
    face = _Face(person, actions, view)
    patch = face.paint()
    points = np.stack([*face.pupils, face.nose_tip, *face.mouth_corners])
    return photograph(patch, face.patch(points), view)


class _Face:
    """The geometry of one face in units, and the painting of it on a patch."""

    def __init__(self, person: Person, actions: Floats, view: View) -> None:
        self.person, self.view = person, view
        self.side = [dict(zip(ACTIONS, row, strict=True)) for row in actions]
        self.both = dict(zip(ACTIONS, actions.mean(axis=0), strict=True))
        self.yaw, self.pitch = np.sin(np.deg2rad([view.yaw, view.pitch]))
        self.length = 1 + 0.06 * person.face_length
        self.eye_x = 1 + 0.07 * person.eye_spacing
        self.nose_y = 1.05 * self.length + 0.13 * person.nose_length
        self.mouth_y = 1.97 * self.length
        self.wide = 1 + 0.09 * person.face_width
        self.jaw = max(self.both["jaw_drop"], 0.0)
        self.pupils = [np.array([sign * self.eye_x, 0.0]) for sign in (-1, 1)]
        self.nose_tip = np.array([0.0, self.nose_y - 0.04 * self.both["nose_wrinkle"]])
        self.mouth = self._mouth()
        self.mouth_corners = [self.mouth["upper"][0], self.mouth["upper"][-1]]

    def patch(self, points: Floats) -> Floats:
        """Patch pixels [N, 2] of points [N, 2] in units, turned by yaw and pitch about the head's rim.

        Orthographic, and the depth is that of a dome; the nose stands out of it.
        """
        x, y = points[:, 0], points[:, 1]
        depth = 1.6 * np.sqrt(np.maximum(1 - (x / 2.5) ** 2 - ((y - 0.5) / 4.2) ** 2, 0.0))
        depth += 0.55 * np.exp(-((x / 0.4) ** 2) - ((y - self.nose_y) / 0.5) ** 2)
        turned = np.stack([x + depth * self.yaw, y + depth * self.pitch], axis=1)
        return (turned - (LEFT, TOP)) * UNIT

    def paint(self) -> Picture:
        """The patch, uint8, from the back to the front."""
        patch = np.full((HEIGHT, WIDTH), self.view.background, np.uint8)
        self._hair_behind(patch)
        self._neck(patch)
        self._ears(patch)
        mask = np.zeros_like(patch)
        self._fill(mask, self._outline(), 255, flat=True)
        blend(patch, self._skin(), mask)
        self._beard(patch, mask)
        self._paint_nose(patch)
        self._paint_mouth(patch)
        for side in (0, 1):
            self._paint_eye(patch, side)
            self._paint_brow(patch, side)
        self._hair_in_front(patch)
        if self.person.glasses:
            self._paint_glasses(patch)
        return patch

    def _corners(self, points: Floats, flat: bool) -> NDArray[np.int32]:
        pixels = (points - (LEFT, TOP)) * UNIT if flat else self.patch(points)
        return (pixels * (1 << SHIFT) + 0.5).astype(np.int32)

    def _fill(self, image: Picture, points: Floats, grey: float, flat: bool = False) -> None:
        """Fill a polygon given in units; `flat` ones lie in the head's rim and do not turn."""
        cv2.fillPoly(image, [self._corners(points, flat)], grey, cv2.LINE_AA, SHIFT)

    def _stroke(self, image: Picture, points: Floats, grey: float, thickness: int) -> None:
        cv2.polylines(image, [self._corners(points, False)], False, grey, thickness, cv2.LINE_AA, SHIFT)

    def _outline(self) -> Floats:
        jaw = self.wide + 0.16 * self.person.jaw_width
        half = path(0, -2.95, -1.15, -2.72, -1.90, -1.75, -2.12, -0.40, -2.06, 0.95, -1.76, 2.15, -1.20, 2.98)
        half = np.vstack([half, path(-0.52, 3.42, 0, 3.48)])
        half[:, 0] *= np.array([self.wide] * 5 + [jaw, jaw, self.wide, 1])
        low = np.clip((half[:, 1] - 1.2) / 2.2, 0, 1)
        half[:, 1] = np.where(half[:, 1] > 0, half[:, 1] * self.length, half[:, 1]) + 0.50 * self.jaw * low
        half[:, 0] *= 1 - 0.05 * self.jaw * low
        return curve(mirror(half), closed=True)

    def _skin(self) -> Picture:
        """The lit skin of the whole patch, uint8; worked out in coarse cells, since all of it is soft."""
        x, y = coarse_grid()
        bumps = np.array(self._bumps())
        centres = self.patch(bumps[:, :2]) / UNIT + (LEFT, TOP)
        across = np.exp(-(((x - centres[:, :1]) / bumps[:, 2:3]) ** 2) / 2)
        down = np.exp(-(((y - centres[:, 1:2]) / bumps[:, 3:4]) ** 2) / 2) * bumps[:, 4:]
        tall = np.where(y > 0, 3.4 * self.length + 0.5 * self.jaw + 0.3, 3.55)
        inside = 1 - (x / (2.45 + 0.2 * self.person.face_width)) ** 2 - ((y - 0.35) / tall).T ** 2
        height = (1.5 * np.sqrt(np.maximum(inside, 0.03)) + down.T @ across).astype(np.float32)
        cells = UNIT / COARSE
        slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=cells / 8)
        slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=cells / 8)
        light_x, light_y = self.view.light
        steep = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
        facing = np.maximum((0.95 - slope_x * light_x - slope_y * light_y) / steep, 0)
        shade = self.person.skin * (0.40 + 0.62 * facing)
        shade *= 1 - self._folds() * np.float32(0.5 / 255)
        return refined(shade)

    def _bumps(self) -> list[tuple[float, float, float, float, float]]:
        """The relief: x, y, width, height (standard deviations) and elevation of each bump, units."""
        p, both = self.person, self.both
        wing = 0.36 + 0.07 * p.nose_width
        nose, mouth, chin = self.nose_y, self.mouth_y, 3.15 * self.length + 0.5 * self.jaw
        bumps = [
            (0.0, 0.45 * nose, 0.17, 0.42, 0.26),
            (0.0, nose - 0.06, 0.24, 0.22, 0.30),
            (0.0, mouth - 0.42, 0.07, 0.16, -0.03),
            (0.0, mouth + 0.36 + 0.6 * self.jaw, 0.45, 0.10, -0.10 - 0.06 * both["chin_raise"]),
            (0.0, chin - 0.1, 0.38, 0.24, 0.16 + 0.08 * both["chin_raise"]),
            (0.0, mouth, 0.60, 0.40, 0.12),
            (0.0, -1.55, 1.0, 0.55, 0.10),
        ]
        for sign, side in zip((-1, 1), self.side, strict=True):
            wing_y = nose + 0.04 - 0.14 * side["nose_wrinkle"] - 0.06 * side["upper_lip_raise"]
            brow_y = -0.66 + 0.14 * side["brow_lower"] - 0.22 * side["outer_brow_raise"]
            cheek = side["cheek_raise"] + 0.5 * side["nose_wrinkle"]
            bumps += [
                (sign * wing, wing_y, 0.13, 0.15, 0.15 + 0.03 * side["nose_wrinkle"]),
                (sign * self.eye_x, -0.05, 0.50, 0.28, -0.20),
                (sign * 0.42, -0.12, 0.16, 0.30, -0.14),
                (sign * (self.eye_x - 0.1), brow_y, 0.62, 0.17, 0.13 + 0.05 * side["brow_lower"]),
                (sign * 1.30, 0.98 - 0.18 * cheek, 0.46, 0.36, 0.16 + 0.16 * cheek),
                (sign * 1.30, 2.1 * self.length, 0.35, 0.55, -0.10 - 0.07 * p.hollow_cheeks - 0.10 * self.jaw),
            ]
        return bumps

    def _folds(self) -> NDArray[np.float32]:
        """Furrows and wrinkles as darkness 0..255 over the coarse cells."""
        wing = 0.50 + 0.07 * self.person.nose_width
        chin = self.mouth_y + 0.62 + 0.6 * self.jaw
        # Each fold: a curve through three points, its strength, its thickness in cells.
        folds = [(path(-0.35, chin + 0.1, 0, chin, 0.35, chin + 0.1), 0.12 + 0.6 * self.both["chin_raise"], 2)]
        for sign, act, corner in zip((-1, 1), self.side, self.mouth_corners, strict=True):
            wing_y = self.nose_y - 0.05 - 0.12 * act["nose_wrinkle"]
            end_x, end_y = moved(corner, sign * 0.24, 0.05)
            bow = sign * (wing + 0.38 + 0.10 * act["corner_pull"])
            nasolabial = path(sign * wing, wing_y, bow, (wing_y + end_y) / 2 - 0.05, end_x, end_y)
            strength = 0.24 + 0.75 * act["corner_pull"] + 0.6 * act["nose_wrinkle"] + 0.36 * act["upper_lip_raise"]
            folds.append((nasolabial, strength + 0.2 * act["lip_stretch"], 2))
            for row, y in enumerate((-1.25, -1.55, -1.85)):
                top = y - 0.12 * act["inner_brow_raise"] - 0.02 * row
                end = sign * (0.35 + 0.75 * min(max(act["outer_brow_raise"], 0.0) + 0.3, 1.0))
                forehead = path(0, top, 0.5 * end, top - 0.05, end, top + 0.04)
                folds.append((forehead, 0.08 + 0.55 * act["inner_brow_raise"] * (1 - 0.2 * row), 1))
            frown = path(sign * 0.17, -0.85, sign * 0.15, -0.6, sign * 0.20, -0.35)
            folds.append((frown, 0.06 + 0.75 * act["brow_lower"], 2))
            for y in (-0.05, 0.13, 0.30):
                bridge = path(0, y, sign * 0.14, y - 0.03, sign * 0.30, y + 0.09)
                folds.append((bridge, 0.75 * act["nose_wrinkle"], 1))
            eye = sign * self.eye_x
            for slope in (-0.7, 0.1, 0.9):
                steps = np.arange(3)[:, None] * np.array([sign * 0.15, 0.15 * slope])
                crows_foot = moved(steps, eye + sign * 0.62, 0.1 * slope)
                folds.append((crows_foot, 0.06 + 0.6 * act["cheek_raise"], 1))
            bag = 0.40 - 0.06 * act["cheek_raise"]
            strength = 0.12 + 0.35 * act["cheek_raise"] + 0.3 * act["lid_tighten"] + 0.3 * act["nose_wrinkle"]
            folds.append((path(eye - 0.45, bag - 0.1, eye, bag, eye + 0.45, bag - 0.1), strength, 1))
            beside = corner + sign * path(0.06, sign * 0.06, 0.14, sign * 0.19, 0.18, sign * 0.34)
            folds.append((beside, 0.06 + 0.48 * act["corner_depress"] + 0.18 * act["lip_press"], 2))
        curves = spline(3, False, 6) @ np.array([points for points, _, _ in folds])  # all at once: many and short
        corners = self._corners(curves.reshape(-1, 2), False).reshape(len(folds), -1, 2) // COARSE
        cells = np.zeros((HEIGHT // COARSE, WIDTH // COARSE), np.uint8)
        for line, (_, strength, thickness) in zip(corners, folds, strict=True):
            if strength > 0.04:
                cv2.polylines(cells, [line], False, 255 * min(strength, 1.0), thickness, cv2.LINE_AA, SHIFT)
        return cv2.GaussianBlur(cells, (5, 5), 0.9).astype(np.float32)

    def _neck(self, patch: Picture) -> None:
        p = self.person
        wide, drop = 1.25 + 0.12 * p.jaw_width + 0.08 * p.face_width, 0.45 * self.jaw
        shoulders = path(0, 4.3, -wide - 0.1, 4.25, -2.3, 4.62, -4.2, 4.85, -4.2, 5.2, 0, 5.2)
        neck = path(0, 2, -wide, 2, -wide, 3.6, -wide - 0.15, 4.45, -0.5, 4.8, 0, 4.85)
        shadow = path(0, 2, -wide, 2, -wide, 3, -0.7 * wide, 3.55, 0, 3.8)
        self._fill(patch, mirror(shoulders), self.view.clothes, flat=True)
        self._fill(patch, mirror(neck), 0.66 * p.skin, flat=True)
        self._fill(patch, mirror(moved(shadow, 0, drop) * np.array([1, self.length])), 0.46 * p.skin, flat=True)

    def _ears(self, patch: Picture) -> None:
        p = self.person
        x, size = 2.10 * self.wide + 0.06 * p.ears, 1 + 0.15 * p.ears
        for sign in (-1, 1):
            lit = 0.84 + 0.25 * sign * self.view.light[0]
            x_ear = sign * x + 0.25 * self.yaw
            self._fill(patch, ellipse((x_ear, 0.35), 0.30 * size, 0.62 * size), lit * p.skin, flat=True)
            inner = ellipse((x_ear + sign * 0.03, 0.30), 0.14 * size, 0.36 * size)
            self._fill(patch, inner, 0.78 * lit * p.skin, flat=True)

    def _mouth(self) -> dict[str, Floats]:
        """Four curves from the right corner to the left: the lips' outer (upper, lower) and inner edges."""
        right, left, both = self.side[0], self.side[1], self.both
        at: Floats = np.array([-1, -0.55, -0.2, 0, 0.2, 0.55, 1])
        lip = 1 - 0.45 * np.clip(both["lip_press"], -0.3, 1.2)

        def sided(action: str) -> Floats:
            values: Floats = (1 - at) / 2 * right[action] + (1 + at) / 2 * left[action]
            return values

        pull, depress, stretch = sided("corner_pull"), sided("corner_depress"), sided("lip_stretch")
        pressed = sided("lip_press")
        width = 0.88 + 0.18 * pull + 0.20 * stretch - 0.14 * self.jaw - 0.05 * pressed - 0.03 * depress
        corner = -0.03 - 0.30 * pull + 0.26 * depress + 0.05 * stretch + 0.12 * self.jaw
        x, y = at * width, self.mouth_y + 0.10 * pull * (1 - at**2) + corner * at**2
        y = y - 0.10 * sided("chin_raise") * (1 - at**2)
        middle = np.array([0, 0.75, 1, 0.95, 1, 0.75, 0])
        raised = sided("upper_lip_raise") + 0.4 * sided("nose_wrinkle")
        parted = np.maximum(0.55 * pull + 0.45 * stretch + 0.5 * raised - 0.5 * pressed, 0)
        inner_upper = -(0.20 * np.maximum(raised, 0) + 0.05 * parted + 0.03 * self.jaw) * middle
        inner_lower = (0.16 * parted + 0.78 * self.jaw) * middle
        heights = {
            "upper": inner_upper - 0.25 * lip * np.array([0, 0.66, 1, 0.8, 1, 0.66, 0]),
            "inner_upper": inner_upper,
            "inner_lower": inner_lower,
            "lower": inner_lower + 0.31 * lip * np.array([0, 0.72, 0.98, 1, 0.98, 0.72, 0]),
        }
        return {name: np.stack([x, y + height], axis=1) for name, height in heights.items()}

    def _paint_mouth(self, patch: Picture) -> None:
        skin, lips = self.person.skin, self.person.skin * (1 + 0.14 * self.person.lip_shade)
        upper, inner_upper, inner_lower, lower = (curve(points) for points in self.mouth.values())
        gap = inner_lower[:, 1] - inner_upper[:, 1]
        self._fill(patch, between(upper, lower), 0.66 * lips)
        self._fill(patch, between(upper, inner_upper), 0.56 * lips)
        self._stroke(
            patch, curve(0.55 * self.mouth["lower"] + 0.45 * self.mouth["inner_lower"])[12:-12], 0.76 * lips, 2
        )
        if gap.max() > 0.06:
            self._fill(patch, between(inner_upper, inner_lower), 32)
            edge, room = inner_upper[3:-3], gap[3:-3]
            level = np.maximum(np.minimum(edge[:, 1] + 0.8 * room, edge[:, 1].max() + 0.14), edge[:, 1])
            self._fill(patch, between(edge, np.stack([edge[:, 0], level], axis=1)), 200)  # the upper teeth
            if self.jaw > 0.35:
                tongue = inner_lower[8:-8]
                self._fill(patch, between(tongue - np.outer(gap[8:-8], [0, 0.22]), tongue), 85)
        else:
            self._stroke(patch, inner_upper, 0.30 * skin, 2)
        for corner, sign in zip(self.mouth_corners, (-1, 1), strict=True):
            dimple = np.stack([moved(corner, -sign * 0.04, 0), moved(corner, sign * 0.05, 0.02)])
            self._stroke(patch, dimple, 0.42 * skin, 2)

    def _paint_nose(self, patch: Picture) -> None:
        skin, wing = self.person.skin, 0.40 + 0.07 * self.person.nose_width
        for sign, side in zip((-1, 1), self.side, strict=True):
            y = self.nose_y - 0.14 * side["nose_wrinkle"] - 0.06 * side["upper_lip_raise"]
            flare = wing + 0.05 * side["nose_wrinkle"]
            edge = path(flare + 0.04, y - 0.12, flare + 0.09, y + 0.04, flare - 0.02, y + 0.17) * np.array([sign, 1])
            self._stroke(patch, curve(edge), 0.62 * skin, 2)
            self._fill(patch, ellipse((sign * 0.5 * flare, y + 0.16), 0.12, 0.055, 12), 0.34 * skin)
        base = path(-0.16, 0.20, 0, 0.24, 0.16, 0.20)
        self._stroke(patch, curve(moved(base, 0, self.nose_y)), 0.66 * skin, 2)

    def _paint_eye(self, patch: Picture, side: int) -> None:
        p, act, sign = self.person, self.side[side], (-1, 1)[side]
        half = 0.47 * (1 + 0.08 * p.eye_width)
        squint = 0.11 * act["lid_tighten"] + 0.05 * act["brow_lower"] + 0.03 * act["corner_pull"]
        top = np.clip(0.27 + 0.16 * act["lid_raise"] - squint, 0.05, 0.55)
        squint_below = 0.06 * act["lid_tighten"] + 0.09 * act["cheek_raise"]
        low = np.clip(0.16 + 0.06 * act["lid_raise"] - squint_below, 0.03, 0.3)
        slant = 0.07 * (act["inner_brow_raise"] - act["outer_brow_raise"] - 0.7 * act["brow_lower"])
        at = np.array([-1, -0.55, 0, 0.55, 1])  # from the inner to the outer corner
        x = self.pupils[side][0] + sign * half * at
        arch = top * np.array([-0.12, 0.74, 1, 0.80, 0.05]) - 1.6 * slant * at * (1 - at**2)
        upper = np.stack([x, -arch], axis=1)
        lower = np.stack([x, low * np.array([0.12, 0.66, 1, 0.90, 0.05])], axis=1)
        upper[[0, -1], 1] = lower[[0, -1], 1] = (0.04, -0.03)
        upper, lower = curve(upper), curve(lower)

        opening = between(upper, lower)
        x0, y0, width, height = cv2.boundingRect(self.patch(opening).astype(np.float32))
        box = slice(y0 - 2, y0 + height + 2), slice(x0 - 2, x0 + width + 2)
        mask, ball = np.zeros_like(patch), np.full_like(patch, 222)
        self._fill(mask, opening, 255)
        self._fill(ball, ellipse(self.pupils[side], 0.245, 0.245), 78 + 38 * p.iris)
        self._stroke(ball, ellipse(self.pupils[side], 0.235, 0.235), 40 + 20 * p.iris, 1)
        self._fill(ball, ellipse(self.pupils[side], 0.105, 0.105, 12), 18)
        self._fill(ball, ellipse(moved(self.pupils[side], -0.08, -0.09), 0.045, 0.045, 8), 245)
        self._stroke(ball, moved(upper, 0, 0.04), 150, 3)  # the upper lid's shadow
        blend(patch[box], ball[box], mask[box])

        self._stroke(patch, upper, min(0.25 * p.skin, 45), 3)
        self._stroke(patch, lower, 0.55 * p.skin, 1)
        crease = moved(upper[4:-2], 0, -0.12 + 0.03 * act["lid_raise"])
        self._stroke(patch, crease, 0.60 * p.skin, 1)

    def _paint_brow(self, patch: Picture, side: int) -> None:
        p, act, sign = self.person, self.side[side], (-1, 1)[side]
        inner, outer, low = act["inner_brow_raise"], act["outer_brow_raise"], act["brow_lower"]
        x = np.array([0.36 - 0.09 * low, 0.72, 1.12, 1.42, 1.64 + 0.1 * p.brow_length]) * self.eye_x
        y = np.array([-0.55, -0.64, -0.69, -0.64, -0.50])
        y -= inner * np.array([0.32, 0.20, 0.06, 0, 0]) + outer * np.array([0.02, 0.14, 0.28, 0.28, 0.22])
        y += low * np.array([0.25, 0.19, 0.12, 0.06, 0.02])
        y += act["nose_wrinkle"] * np.array([0.06, 0.04, 0.02, 0, 0])
        thick = 0.105 * (1 + 0.45 * p.brow_thickness) * np.array([0.75, 1.0, 0.9, 0.6, 0.15])
        edges = [curve(np.stack([sign * x, y + way * thick], axis=1)) for way in (-1, 1)]
        grey = 0.72 * min(p.hair, 0.75 * p.skin) + 0.18 * p.skin
        self._fill(patch, between(edges[0], edges[1]), grey)

    def _beard(self, patch: Picture, head: Picture) -> None:
        if self.person.beard == "none":
            return
        mask, mouth = np.zeros_like(patch), self.mouth_y
        if self.person.beard == "moustache":
            half = path(0, -0.66, -0.55, -0.48, -1.0, 0.05, -0.85, 0.12, 0, -0.2)
            self._fill(mask, curve(moved(mirror(half), 0, mouth), closed=True), 200)
        else:
            half = path(0, -0.62, -0.75, -0.45, -1.5, -0.35, -2.1, -1.0, -2.3, 1.0, -1.2, 3.0, 0, 3.0)
            self._fill(mask, moved(mirror(half), 0, mouth), 95 if self.person.beard == "stubble" else 190)
            np.minimum(mask, head, out=mask)
        cv2.GaussianBlur(mask, (13, 13), 3.0, dst=mask)
        noise = grain(self.person.texture + 7, HEIGHT, WIDTH)
        hair = cv2.addWeighted(noise, 0.4, noise, 0, 0.8 * self.person.hair - 0.4 * GRAIN_ZERO)
        blend(patch, np.asarray(hair, np.uint8), mask)

    def _paint_glasses(self, patch: Picture) -> None:
        for sign in (-1, 1):
            rim = ellipse((sign * self.eye_x, 0.06), 0.70, 0.54)
            self._stroke(patch, np.vstack([rim, rim[:1]]), 35, 2)
            self._stroke(patch, path(sign * (self.eye_x + 0.70), -0.05, sign * 2.1, -0.12), 35, 2)
        between = self.eye_x - 0.68
        self._stroke(patch, path(-between, -0.02, 0, -0.08, between, -0.02), 35, 2)

    def _hair_behind(self, patch: Picture) -> None:
        halves = {
            "long": path(0, -3.35, -1.6, -3.0, -2.45, -1.8, -2.65, 0.5, -2.75, 2.6, -2.5, 4.4, 0, 4.4),
            "curly": path(0, -3.7, -1.3, -3.5, -2.3, -2.7, -2.8, -1.4, -2.75, 0, -2.4, 0.8, 0, 0.8),
        }
        if self.person.hair_style in halves:
            half = halves[self.person.hair_style] * np.array([self.wide, 1])
            self._fill(patch, curve(mirror(half), closed=True), 0.85 * self.person.hair, flat=True)

    def _hair_in_front(self, patch: Picture) -> None:
        style, line = self.person.hair_style, -2.0 - 0.25 * self.person.hairline
        if style == "bald":
            return
        top = {"curly": -3.55, "long": -3.3, "fringe": -3.25, "parted": -3.3, "short": -3.15}[style]
        crown = path(-2.16, 0.05, -2.28, -0.9, -2.10, -2.0, -1.30, top + 0.12, 0, top)
        crown = curve(np.vstack([crown, (crown * np.array([-1, 1]))[-2::-1]]) * np.array([self.wide, 1]))
        edge = {  # of the forehead, from the left ear to the right one
            "short": path(1.98, 0, 1.78, -1.2, 1.2, line, 0, line - 0.15, -1.2, line, -1.78, -1.2, -1.98, 0),
            "long": path(1.98, 0.6, 1.8, -0.9, 1, line, 0, line - 0.35, -1, line, -1.8, -0.9, -1.98, 0.6),
            "fringe": path(1.95, -0.3, 1.8, -1, 1, -1.22, 0, -1.15, -1, -1.25, -1.8, -1, -1.95, -0.3),
            "parted": path(1.95, -0.5, 1.7, -1.3, 0.7, line - 0.4, -0.2, line + 0.1, -1.5, -1.3, -1.95, -0.5),
        }["short" if style == "curly" else style]
        mask = np.zeros_like(patch)
        self._fill(mask, np.vstack([crown, curve(edge * np.array([self.wide, 1]))]), 255, flat=True)
        if style == "curly":
            for k, at in enumerate(crown[::2]):
                self._fill(mask, ellipse(at, 0.30 + 0.05 * (k % 3), 0.28, 12), 255, flat=True)
        blend(patch, strands(self.person.hair, self.person.texture, self.view.light[0]), mask)
