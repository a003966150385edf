"""The figure of a synthetic pedestrian: an articulated body, painted as a map of material labels."""

from __future__ import annotations

from math import cos, hypot, pi, sin

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.synthetic.canvas import Canvas, Point, Pose
from vireid_lightning.data.synthetic.person import Material, Person, Texture

_SHOULDER, _NECK, _HEAD = 0.82, 0.855, 0.925  # heights
_PLAIN = Texture("plain", 1.0, 0.0, 0.0)


class Figure(Canvas):
    """Paints one person in one pose into ``labels`` (rows, columns) uint8, from the farthest part to the nearest."""

    def __init__(self, labels: NDArray[np.uint8], person: Person, pose: Pose) -> None:
        super().__init__(labels, pose)
        self.person = person

    def paint(self) -> None:
        """Paint the whole figure."""
        person = self.person
        far = 1 if self.aside > 0 else -1
        bag_behind = -person.bag_side * self.aside < -0.4
        if self.facing > 0.1:
            self._paint_backpack()
        if bag_behind:
            self._paint_shoulder_bag()
        self._paint_arm(far)
        self._paint_leg(far)
        self._paint_leg(-far)
        if person.bottom == "skirt":
            self._paint_skirt()
        self._paint_torso()
        self._paint_head()
        if self.facing <= 0.1:
            self._paint_backpack()
        self._paint_arm(-far)
        if not bag_behind:
            self._paint_shoulder_bag()

    def _paint_leg(self, side: int) -> None:
        person, pose, unit = self.person, self.pose, self.pose.unit
        angle = pose.stride * sin(pose.phase + (pi if side > 0 else 0))
        bend = pose.stride * (0.15 + max(0.0, cos(pose.phase + (pi if side > 0 else 0))))
        half = (person.hip - 0.045) / 2
        x = side * (person.waist * 0.5)
        up, forward = person.hip - half * cos(angle), half * sin(angle)
        hip, knee = self.project(x, person.hip, 0), self.project(x, up, forward)
        up, forward = up - half * cos(angle - bend), forward + half * sin(angle - bend)
        ankle = self.project(x, up, forward)
        toe = self.project(x * 1.2, up - 0.025, forward + 0.085)
        heel = self.project(x, up - 0.025, forward - 0.015)
        bare = Material.SKIN if person.bare_legs and person.bottom != "trousers" else Material.LEGWEAR
        thick = person.leg * unit * (0.9 if person.bottom == "trousers" else 0.8)
        trousers = person.bottom == "trousers"
        wide = person.bottom_width * 0.8
        low = thick * (0.62 * wide + 0.1) if trousers else thick * 0.5
        shade = Material.BOTTOM if trousers else bare
        tones = (Material.BOTTOM, Material.BOTTOM_SECOND)
        shin = self.fill_limb(knee, ankle, (thick * 0.75, low), shade)
        if trousers:
            self.weave(shin, person.bottom_texture, tones, (knee, ankle), thick, above=half)
        thigh = self.fill_limb(hip, knee, (thick * 1.05, thick * 0.78), shade)
        if trousers:
            self.weave(thigh, person.bottom_texture, tones, (hip, knee), thick)
        if person.bottom == "shorts":
            share = min(person.bottom_length * 2, 0.98)
            end = (hip[0] + share * (knee[0] - hip[0]), hip[1] + share * (knee[1] - hip[1]))
            cloth = self.fill_limb(hip, end, (thick * 1.2, thick * wide), Material.BOTTOM)
            self.weave(cloth, person.bottom_texture, tones, (hip, end), thick)
        if person.boot > 0:
            top = (ankle[0] + person.boot * (knee[0] - ankle[0]), ankle[1] + person.boot * (knee[1] - ankle[1]))
            self.fill_limb(top, ankle, (thick * 0.72, thick * 0.6), Material.SHOES)
        self.fill_limb(heel, toe, (0.024 * unit, 0.017 * unit), Material.SHOES)
        self.fill_limb(ankle, heel, (0.022 * unit, 0.02 * unit), Material.SHOES)

    def _paint_skirt(self) -> None:
        person = self.person
        top = self.project(0, person.hip + 0.08, 0)
        sway = 0.25 * self.pose.stride * sin(self.pose.phase) * self.aside
        hem_up = person.hip - person.bottom_length * (person.hip - 0.07)
        hem = self.project(0, hem_up, 0)
        upper = self.project_width(person.waist, person.depth)
        stride = person.bottom_length * 0.12 * self.pose.stride * abs(self.aside)
        lower = upper * (0.75 + 0.5 * person.bottom_width) + stride * self.pose.unit
        x = hem[0] + 0.1 * sway * self.pose.unit
        outline = [(top[0] - upper, top[1]), (top[0] + upper, top[1]), (x + lower, hem[1]), (x - lower, hem[1])]
        self.fill_polygon(outline, Material.BOTTOM)
        tones = (Material.BOTTOM, Material.BOTTOM_SECOND)
        self.weave(outline, person.bottom_texture, tones, (top, hem), max(upper, lower), yaw=self.pose.yaw)

    def _paint_torso(self) -> None:
        person, unit = self.person, self.pose.unit
        shoulder = self.project_width(person.shoulder, person.depth)
        waist = self.project_width(person.waist, person.depth * 0.95)
        hem_width = waist * (person.flare if person.hem > 0.05 else 1.0) * 1.05
        neck, chest = self.project(0, _NECK, 0), self.project(0, _SHOULDER, 0)
        middle, hem = self.project(0, person.hip + 0.1, 0), self.project(0, person.hip - person.hem, 0)
        levels = ((neck, 0.035 * unit), (chest, shoulder), (middle, waist), (hem, hem_width))
        outline = [(p[0] + w, p[1]) for p, w in levels] + [(p[0] - w, p[1]) for p, w in reversed(levels)]
        self.fill_polygon(outline, Material.TOP)
        tones = (Material.TOP, Material.TOP_SECOND)
        self.weave(outline, person.top_texture, tones, (neck, hem), max(shoulder, waist), yaw=self.pose.yaw)
        if person.open_front and self.facing > 0.15:
            centre = 0.9 * self.aside * self.pose.stretch * person.depth * unit
            opening = ((neck, 0.02 * unit), (middle, 0.3 * waist * self.facing), (hem, 0.55 * waist * self.facing))
            strip = [(p[0] + centre + w, p[1]) for p, w in opening]
            self.fill_polygon(strip + [(p[0] + centre - w, p[1]) for p, w in reversed(opening)], Material.INNER)
        if person.hood:
            up = (neck[0] - 0.02 * self.aside * unit, neck[1])
            self.fill_ellipse(up, (0.06 * unit, 0.03 * unit), Material.TOP_SECOND)

    def _paint_arm(self, side: int) -> None:
        person, pose, unit = self.person, self.pose, self.pose.unit
        angle = -pose.swing * sin(pose.phase + (pi if side > 0 else 0))
        half = person.arm / 2
        x = side * (person.shoulder - 0.012)
        up, forward = _SHOULDER - 0.015 - half * cos(angle), half * sin(angle)
        shoulder, elbow = self.project(x, _SHOULDER - 0.015, 0), self.project(x + side * 0.02, up, forward)
        angle += 0.25 + 0.4 * pose.swing
        wrist = self.project(x + side * 0.015, up - half * cos(angle), forward + half * sin(angle))
        thick = 0.031 * person.limb * unit
        self.fill_limb(elbow, wrist, (thick * 0.75, thick * 0.6), Material.SKIN)
        self.fill_limb(shoulder, elbow, (thick, thick * 0.8), Material.SKIN)
        tones = (Material.TOP, Material.TOP_SECOND)
        texture = _PLAIN if person.top_texture.kind == "print" else person.top_texture
        cloth = thick * 1.12
        if person.sleeve > 0.5:
            share = 2 * person.sleeve - 1.12
            cuff = (elbow[0] + share * (wrist[0] - elbow[0]), elbow[1] + share * (wrist[1] - elbow[1]))
            outline = self.fill_limb(elbow, cuff, (cloth * 0.85, cloth * 0.72), Material.TOP)
            self.weave(outline, texture, tones, (elbow, cuff), cloth, above=half + 0.03)
        share = min(1.0, 2 * person.sleeve)
        end = (shoulder[0] + share * (elbow[0] - shoulder[0]), shoulder[1] + share * (elbow[1] - shoulder[1]))
        outline = self.fill_limb(shoulder, end, (cloth, cloth * 0.9), Material.TOP)
        self.weave(outline, texture, tones, (shoulder, end), cloth, above=0.03)
        if person.bag == "hand" and side == person.bag_side:
            self._paint_box((wrist[0], wrist[1] + (0.03 + person.bag_size) * unit), person.bag_size * 0.75)

    def _paint_head(self) -> None:
        person, unit, hair = self.person, self.pose.unit, self.person.hair
        facing, aside = cos(self.pose.yaw + self.pose.turn), sin(self.pose.yaw + self.pose.turn)
        x, y = self.project(0, _HEAD, 0.012)
        radius = person.head * unit
        covered = Material.SKIN if hair == "none" else Material.HAIR
        back = x - 0.35 * radius * aside
        self.fill_limb((x, y + radius), self.project(0, _NECK - 0.005, 0), (0.028 * unit, 0.034 * unit), Material.SKIN)
        if hair == "long":
            self.fill_limb((back, y), (back, y + 2.3 * radius), (radius, radius * 0.85), Material.HAIR)
        if hair == "tail" and facing < 0.4:
            end = (x - 1.45 * radius * aside, y + 2.4 * radius)
            self.fill_limb((x - radius * aside, y), end, (0.4 * radius, 0.3 * radius), Material.HAIR)
        if hair == "bun":
            bun = (x - 0.7 * radius * aside, y - 1.1 * radius)
            self.fill_ellipse(bun, (0.55 * radius, 0.5 * radius), Material.HAIR)
        bulk = 1.4 if hair == "curls" else 1.0
        self.fill_ellipse((back, y - 0.1 * radius), (radius * bulk, radius * 1.12 * bulk), covered)
        if facing > -0.35:
            face = (x + 0.3 * radius * aside, y + 0.22 * radius)
            self.fill_ellipse(face, (radius * (0.72 - 0.1 * abs(aside)), radius * 0.92), Material.SKIN)
            if person.glasses:
                eyes = (face[0] + 0.2 * radius * aside, face[1] - 0.1 * radius)
                self.fill_ellipse(eyes, (radius * 0.66, radius * 0.2), Material.GLASSES)
        if hair == "hat":
            self.fill_ellipse((x, y - 0.3 * radius), (radius * 1.12, radius * 1.05), Material.HAT, (180.0, 360.0))
            brim = x + 0.6 * radius * aside, y - 0.3 * radius
            self.fill_ellipse(brim, (radius * (0.9 + 0.3 * abs(aside)), 0.18 * radius), Material.HAT)

    def _paint_box(self, centre: Point, size: float) -> None:
        """Paint a bag whose lower half has the second tone; ``size`` is half its height in body heights."""
        (x, y), half = centre, size * self.pose.unit
        wide = half * (0.75 + 0.25 * abs(self.aside))
        self.fill_polygon(
            [(x - wide, y - half), (x + wide, y - half), (x + wide, y + half), (x - wide, y + half)], Material.BAG
        )
        low = [(x - wide, y + 0.2 * half), (x + wide, y + 0.2 * half), (x + wide, y + half), (x - wide, y + half)]
        self.fill_polygon(low, Material.BAG_SECOND)

    def _paint_backpack(self) -> None:
        person, unit = self.person, self.pose.unit
        if person.bag != "backpack":
            return
        x, y = self.project(0, _SHOULDER - 0.02 - person.bag_size * 1.3, -person.depth - 0.03)
        half = 1.35 * person.bag_size * unit
        wide = unit * hypot(person.shoulder * 0.85 * self.facing, person.bag_size * 0.6 * self.aside)
        self.fill_limb((x, y - half * 0.6), (x, y + half * 0.6), (wide, wide), Material.BAG)
        low = [(x - wide, y), (x + wide, y), (x + wide, y + half * 0.6), (x - wide, y + half * 0.6)]
        self.fill_polygon(low, Material.BAG_SECOND)

    def _paint_shoulder_bag(self) -> None:
        person, unit = self.person, self.pose.unit
        if person.bag != "shoulder":
            return
        side = person.bag_side
        front = person.depth if self.facing > 0 else -person.depth
        start = self.project(-side * person.shoulder * 0.6, _SHOULDER + 0.02, front * 0.3)
        end = self.project(side * person.waist, person.hip + 0.06, front * 0.8)
        self.fill_limb(start, end, (0.011 * unit, 0.011 * unit), Material.BAG)
        self._paint_box(self.project(side * (person.waist + 0.03), person.hip - 0.01, 0), person.bag_size)
