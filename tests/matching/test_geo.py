"""Cells and distances: equal to SQL, and no border through which a neighbour is lost."""

import math
from itertools import pairwise

import pytest
from django.db import connection
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from matching import geo

latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 180)


@pytest.mark.parametrize(
    ("latitude", "longitude", "expected"),
    [
        (57.64911, 10.40744, "u4pruydqq"),  # the example of G. Niemeyer
        (0, 0, "s00000000"),
        (90, 180, "zzzzzzzzz"),
        (-90, -180, "000000000"),
    ],
)
def test_a_geohash_as_published(latitude, longitude, expected):
    assert geo.geohash(latitude, longitude) == expected


@pytest.mark.django_db
def test_geohash_is_equal_to_the_one_in_sql():
    @settings(max_examples=300, deadline=None)
    @given(latitudes, longitudes)
    @example(90.0, 180.0)
    @example(-90.0, -180.0)
    @example(-0.0, 0.0)
    @example(89.99999999999999, 179.99999999999997)
    def check(latitude, longitude):
        with connection.cursor() as cursor:
            cursor.execute("SELECT matching_geohash(%s::float8, %s::float8)", [latitude, longitude])
            assert cursor.fetchone() == (geo.geohash(latitude, longitude),)

    check()


def covering(latitude, longitude, radius):
    """Prefixes of geohashes that together cover a circle."""
    return [
        geo._text(cell << (geo._BITS - 5 * precision))[:precision]
        for precision, cell in geo._cells(latitude, longitude, radius)
    ]


@settings(max_examples=500, deadline=None)
@given(
    latitude=latitudes,
    longitude=longitudes,
    radius=st.floats(0, 3_000_000),
    bearing=st.floats(0, 2 * math.pi),
    part=st.floats(0, 1),
)
@example(90.0, 0.0, 10.0, 1.0, 1.0)
@example(-90.0, 180.0, 10.0, 3.0, 1.0)
@example(0.0, 180.0, 5.0, math.pi / 2, 1.0)
@example(0.0, -180.0, 0.0, 0.0, 0.0)
@example(0.0, 0.0, 1.0, 3.9, 1.0)
def test_a_covering_covers(latitude, longitude, radius, bearing, part):
    there = _destination(latitude, longitude, radius * part, bearing)
    assume(geo.distance_m(latitude, longitude, *there) <= radius)
    cells = covering(latitude, longitude, radius)
    assert len(cells) == len(set(cells)) <= geo.MAX_CELLS
    assert any(geo.geohash(*there).startswith(cell) for cell in cells)


@pytest.mark.parametrize(
    ("radius", "precision"), [(10, 8), (500, 6), (5_000, 5), (100_000, 3), (2_000_000, 1)]
)
def test_the_size_of_the_cells_follows_the_radius(radius, precision):
    assert {len(cell) for cell in covering(48.8566, 2.3522, radius)} <= {
        precision,
        precision + 1,
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0.00001, 0.00001), (-0.00001, -0.00001)),  # no character in common
        ((12.3, 179.99999), (12.3, -179.99999)),
        ((12.3, 180.0), (12.3, -180.0)),
        ((89.99995, 10.0), (89.99995, -170.0)),  # across the pole
        ((-89.99995, 0.0), (-90.0, 123.0)),
    ],
)
def test_neighbours_across_a_border_share_a_covering(one, other):
    assert geo.distance_m(*one, *other) < 20
    for here, there in ((one, other), (other, one)):
        assert any(geo.geohash(*there).startswith(cell) for cell in covering(*here, 20))


@settings(max_examples=200, deadline=None)
@given(
    latitude=latitudes,
    longitude=longitudes,
    radii=st.lists(st.floats(1, 200_000), min_size=1, max_size=6),
)
def test_rings_are_apart_and_each_covers_its_circle(latitude, longitude, radii):
    radii = sorted(radii)
    rings = geo.rings(latitude, longitude, radii)
    spans = sorted(span for ring in rings for span in ring)
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    for at, radius in enumerate(radii):
        inner = [span for ring in rings[: at + 1] for span in ring]
        for cell in covering(latitude, longitude, radius):
            for corner in (cell.ljust(9, "0"), cell.ljust(9, "z")):
                assert any(low <= corner <= high for low, high in inner)


@pytest.mark.parametrize(
    ("here", "there", "metres"),
    [
        ((0, 0), (0, 1), 111_195),
        ((90, 0), (-90, 0), 20_015_115),
        ((0, 180), (0, -180), 0),
        ((52.5163, 13.3777), (48.8584, 2.2945), 878_360),  # Berlin, Paris
    ],
)
def test_distances(here, there, metres):
    assert geo.distance_m(*here, *there) == pytest.approx(metres, rel=2e-3, abs=1e-6)


def _destination(latitude, longitude, distance, bearing):
    """Where one comes to that far in that direction (degrees), on the sphere."""
    angle, phi = distance / geo.EARTH_RADIUS_M, math.radians(latitude)
    sine = math.sin(phi) * math.cos(angle) + math.cos(phi) * math.sin(angle) * math.cos(bearing)
    other_phi = math.asin(max(-1.0, min(1.0, sine)))
    turned = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(phi),
        math.cos(angle) - math.sin(phi) * math.sin(other_phi),
    )
    other_longitude = (longitude + math.degrees(turned) + 180) % 360 - 180
    return math.degrees(other_phi), other_longitude
