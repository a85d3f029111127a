"""The cells around an item, at the edges of the map too; and the waterfall of a score."""

import pytest

from matching import charts
from matching.geo import geohash
from matching.models import Item

pytestmark = pytest.mark.django_db


def view(item) -> dict:
    return charts.cell_view(Item.objects.get(pk=item.pk))


@pytest.mark.parametrize(
    ("latitude", "longitude", "cells"),
    [
        (49.2626, -123.0695, 9),
        (0.0, 0.0, 9),
        (10.0, 180.0, 9),
        (10.0, -180.0, 9),
        (90.0, 0.0, 6),
        (-90.0, 179.99999, 6),
    ],
)
def test_a_place_lies_in_the_middle_cell_wherever_it_is(ann, post, latitude, longitude, cells):
    drawn = view(post(ann, "lost", "Bag", latitude=latitude, longitude=longitude))
    assert len(drawn["cells"]) == len({cell.name for cell in drawn["cells"]}) == cells
    [middle] = [cell for cell in drawn["cells"] if cell.middle]
    assert middle.name == drawn["name"] == geohash(latitude, longitude, 6)
    x, y = drawn["here"]
    assert middle.x - 0.1 <= x <= middle.x + drawn["cell_width"] + 0.1
    assert middle.y - 0.1 <= y <= middle.y + drawn["cell_height"] + 0.1


def test_neighbours_across_the_date_line_are_drawn_beside_it(ann, bob, post):
    here = post(ann, "lost", "Bag", latitude=10, longitude=179.999)
    east = post(bob, "found", "Bag", latitude=10, longitude=-179.999)
    west = post(bob, "lost", "Hat", latitude=10, longitude=179.995)
    post(bob, "found", "Far", latitude=10, longitude=170)
    drawn = view(here)
    x, y = drawn["here"]
    dots = {dot.item_id: dot for dot in drawn["dots"]}
    assert dots.keys() == {east.pk, west.pk}
    assert dots[west.pk].x < x < dots[east.pk].x
    assert dots[east.pk].y == pytest.approx(y)
    assert dots[east.pk].metres == pytest.approx(219, abs=2)
    assert (drawn["counterparts"], drawn["others"]) == (1, 1)


def test_north_is_up(ann, post):
    here = post(ann, "lost", "Bag", latitude=49.26, longitude=-123.07)
    north = post(ann, "found", "Bag", latitude=49.261, longitude=-123.07)
    drawn = view(here)
    [dot] = drawn["dots"]
    assert dot.item_id == north.pk
    assert dot.y < drawn["here"][1]


def test_without_a_place_there_is_nothing_to_draw(ann, post):
    assert view(post(ann, "lost", "Bag")) is None


def parts(*contributions: float) -> list[dict]:
    return [
        {"name": f"c{at}", "raw": 0.5, "weight": 0.2, "contribution": one}
        for at, one in enumerate(contributions)
    ]


def bars(drawn: dict) -> list[tuple[float, float]]:
    return [(float(s["bar"]["left"]), float(s["bar"]["width"])) for s in drawn["steps"]]


def test_steps_lead_up_to_the_score():
    drawn = charts.waterfall(0.6, parts(0.1, 0.3, 0.2))
    assert [step["name"] for step in drawn["steps"]] == ["c1", "c2", "c0"]
    assert bars(drawn) == [(0, 30), (30, 20), (50, 10)]
    assert drawn["total"] == {"left": "0.00", "width": "60.00"}
    assert drawn["half"] == "50.00"


def test_steps_may_take_away_and_leave_the_scale():
    drawn = charts.waterfall(0.2, parts(0.5, -0.3))
    assert bars(drawn) == [(0, 50), (20, 30)]
    assert [step["takes"] for step in drawn["steps"]] == [False, True]
    below = charts.waterfall(-0.25, parts(-0.25))
    assert bars(below) == [(0, 20)]
    assert below["half"] == "60.00"


def test_what_does_not_add_up_is_a_step():
    drawn = charts.waterfall(0.7, parts(0.4))
    assert [step["name"] for step in drawn["steps"]] == ["c0", "calibration"]
    assert bars(drawn) == [(0, 40), (40, 30)]
    assert charts.waterfall(0.0, [])["steps"] == []
