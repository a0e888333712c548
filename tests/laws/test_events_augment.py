"""Laws of binning and augmentation."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from event_sets import random_set
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.datasets import kernels
from neuro.datasets.transforms import LINEAR, PLANAR, Augment, augmented, batch, stabilise
from neuro.errors import BadConfig
from neuro.events import EventSet

PLANE = random_set(12, 60, (2, 9, 7), 0)
LINE = random_set(12, 60, (11,), 1)
TIME = {
    "time_shift": st.floats(0, 0.1),
    "time_jitter": st.floats(0, 0.05),
    "time_scale": st.floats(0, 0.5),
    "drop": st.floats(0, 1),
    "blank": st.floats(0, 1),
    "blank_time": st.floats(0.01, 0.5),
}
SPACE = {
    "shift": st.floats(0, 4),
    "jitter": st.floats(0, 2),
    "rotation": st.floats(0, 180),
    "scale": st.floats(0, 1),
    "stretch": st.floats(0, 1),
    "shear": st.floats(0, 1),
    "elastic": st.floats(0, 4),
    "elastic_spacing": st.floats(1, 20),
    "flip": st.floats(0, 1),
}
CHANNELS = {"channel_shift": st.integers(0, 5), "channel_jitter": st.floats(0, 3)}
planar = st.builds(Augment, **TIME, **SPACE)
linear = st.builds(Augment, **TIME, **CHANNELS)
numbers = st.integers(0, 2**40)
few = settings(max_examples=60, deadline=None)


def key(seed: int, epoch: int, recording: int) -> np.uint64:
    return np.uint64(kernels.key_of(np.uint64(seed), np.uint64(epoch), np.uint64(recording)))


def dense(data: EventSet, augment: Augment | None, seed: int, epoch: int, **more: object) -> np.ndarray:
    return batch(data, more.pop("indices", range(len(data))), 0.01, 30, augment, seed=seed, epoch=epoch, **more)  # type: ignore[arg-type]


@few
@given(st.sampled_from([1e-3, 0.01, 0.0125, 0.3]), st.integers(1, 40), st.permutations(range(12)), st.booleans())
def test_plain_batches_equal_the_event_set(dt: float, steps: int, chosen: list[int], flat: bool) -> None:
    data = LINE if flat else PLANE
    assert np.array_equal(batch(data, chosen, dt, steps), data.batch(chosen, dt, steps))
    assert np.array_equal(batch(data, chosen, dt, steps, Augment()), data.batch(chosen, dt, steps))


@few
@given(planar, linear, numbers, numbers)
def test_fused_binning_equals_moving_then_binning(plane: Augment, line: Augment, seed: int, epoch: int) -> None:
    for data, augment in ((PLANE, plane), (LINE, line)):
        moved = augmented(data, augment, seed, epoch)
        assert np.array_equal(dense(data, augment, seed, epoch), moved.batch(range(len(data)), 0.01, 30))


@few
@given(planar, numbers, numbers, st.permutations(range(12)), st.integers(1, 12))
def test_a_recording_does_not_depend_on_its_batch(
    augment: Augment, seed: int, epoch: int, chosen: list[int], size: int
) -> None:
    whole = dense(PLANE, augment, seed, epoch)
    part = dense(PLANE, augment, seed, epoch, indices=chosen[:size], threads=2)
    assert np.array_equal(part, whole[:, chosen[:size]])


@pytest.mark.parametrize("threads", [1, 2, 3, 50])
def test_threads_change_nothing(threads: int) -> None:
    augment = Augment(shift=2, rotation=30, elastic=2, jitter=1, drop=0.5, time_jitter=0.02, blank=0.5, blank_time=0.1)
    assert np.array_equal(dense(PLANE, augment, 1, 2, threads=threads), dense(PLANE, augment, 1, 2))


@few
@given(planar, numbers)
def test_seed_epoch_and_recording_all_matter(augment: Augment, seed: int) -> None:
    p = np.zeros((3, kernels.N_PARAMETERS))
    amounts = np.array([getattr(augment, name) for name in kernels.FIELDS], float)
    with np.errstate(over="ignore"):
        keys = [key(seed, 0, 0), key(seed, 1, 0), key(seed, 0, 1)]
        assert len({int(k) for k in keys}) == 3
        for k, row in zip(keys, p, strict=True):
            kernels.draw(k, amounts, 0.3, 9, 7, row)
    if augment.rotation > 1e-3:
        assert len({row.tobytes() for row in p}) == 3


@few
@given(planar, linear, numbers)
def test_events_are_conserved_or_dropped_never_made(plane: Augment, line: Augment, seed: int) -> None:
    for data, augment in ((PLANE, plane), (LINE, line)):
        moved = augmented(data, augment, seed, 0)
        assert (np.diff(moved.offsets) <= np.diff(data.offsets)).all()
        assert np.array_equal(moved.labels, data.labels)
        assert np.array_equal(moved.groups, data.groups)
        assert moved.shape == data.shape


@few
@given(numbers, st.floats(0, 0.2), st.floats(0, 0.5))
def test_changes_of_time_alone_conserve_events_and_channels(seed: int, jitter: float, scale: float) -> None:
    late = replace(PLANE, times=PLANE.times + np.float32(1.0))
    moved = augmented(late, Augment(time_shift=0.3, time_jitter=jitter, time_scale=scale / 2), seed, 0)
    assert np.array_equal(moved.offsets, late.offsets), "nothing can leave"
    for k in range(len(late)):
        assert np.array_equal(np.sort(moved.recording(k)[1]), np.sort(late.recording(k)[1]))


@few
@given(numbers)
def test_a_flip_is_a_mirror_and_its_own_inverse(seed: int) -> None:
    flip = Augment(flip=1.0)
    once = augmented(PLANE, flip, seed, 0)
    assert np.array_equal(once.offsets, PLANE.offsets)
    assert np.array_equal(dense(PLANE, flip, seed, 0), dense(PLANE, None, 0, 0)[..., ::-1])
    assert np.array_equal(augmented(once, flip, seed, 0).batch(range(12), 0.01, 30), PLANE.batch(range(12), 0.01, 30))


def one_event(x: int, y: int, t: float = 0.1, shape: tuple[int, int, int] = (2, 101, 101), n: int = 400) -> EventSet:
    """n recordings of one event, and of the same event in the other plane."""
    channel = np.array([y * shape[2] + x, (shape[1] + y) * shape[2] + x], np.int32)
    return EventSet(
        np.full(2 * n, t, np.float32),
        np.tile(channel, n),
        np.arange(0, 2 * n + 1, 2),
        np.zeros(n, int),
        np.arange(n),
        shape,
        0.3,
        ("a",),
    )


def places(data: EventSet, augment: Augment, seed: int = 0) -> np.ndarray:
    """[events, 4]: time, plane, x and y from the centre of the middle pixel."""
    moved = augmented(data, augment, seed, 0)
    _, height, width = moved.shape
    plane, pixel = np.divmod(moved.channels, height * width)
    return np.stack([moved.times, plane, pixel % width - width // 2, pixel // width - height // 2], 1)


def test_planes_move_together_and_stay_apart() -> None:
    found = places(one_event(70, 50), Augment(rotation=180, scale=0.3, shift=5, elastic=3)).reshape(-1, 2, 4)
    assert len(found) == 400
    assert (found[:, 0, 1] == 0).all()
    assert (found[:, 1, 1] == 1).all()
    assert np.array_equal(found[:, 0, 2:], found[:, 1, 2:])


def test_rotation_keeps_the_radius_and_covers_its_range() -> None:
    _, _, x, y = places(one_event(80, 50), Augment(rotation=40)).T
    assert np.allclose(np.hypot(x, y), 30, atol=1)
    angle = np.degrees(np.arctan2(y, x))
    assert angle.min() < -35
    assert angle.max() > 35
    assert np.abs(angle).max() < 42
    assert abs(angle.mean()) < 4 * 40 / math.sqrt(3 * 400)


def test_rotation_is_rigid() -> None:
    """Two events of one recording, to the right and below the centre, stay a right angle apart, same sense."""
    channels = np.tile(np.array([50 * 101 + 90, 90 * 101 + 50], np.int32), 200)
    labels = np.zeros(200, int)
    data = EventSet(np.zeros(400), channels, np.arange(0, 401, 2), labels, labels, (1, 101, 101), 0.3, ("a",))
    _, _, x, y = places(data, Augment(rotation=60)).T
    right, below = (x[::2] + 1j * y[::2]), (x[1::2] + 1j * y[1::2])
    assert np.allclose(below / right, 1j, atol=0.06)
    assert np.abs(np.angle(right, deg=True)).max() > 50


@pytest.mark.parametrize("augment", [None, Augment(flip=1.0)])
@pytest.mark.parametrize("dt", [1e-3, 7e-3, 0.0125, 0.025 / 3])
def test_events_on_the_grid_fall_into_the_step_they_begin(augment: Augment | None, dt: float) -> None:
    """float32(0.007) is less than 7 ms; the event is of step 7 all the same, as neuro.events.step_of says."""
    k = np.arange(300)
    times = (k * dt).astype(np.float32)
    one = np.zeros(1, int)
    data = EventSet(times, np.zeros(300, int), np.array([0, 300]), one, one, (1, 3, 3), 300 * dt, ("a",))
    assert batch(data, [0], dt, 300, augment).reshape(300, -1).sum(axis=1).tolist() == [1] * 300


def test_spline_weights_sum_to_one_and_join() -> None:
    def weights(f: float) -> np.ndarray:
        w = np.zeros(4)
        kernels._bspline(f, w)
        return w

    for f in np.linspace(0, 1, 11):
        w = weights(f)
        assert w.sum() == pytest.approx(1)
        assert w @ np.arange(4) == pytest.approx(1 + f), "a linear field is reproduced"
    assert weights(1.0)[1:] == pytest.approx(weights(0.0)[:-1])


def test_scale_stretch_and_shear_do_what_they_say() -> None:
    _, _, x, y = places(one_event(70, 70), Augment(scale=math.log(2))).T
    assert np.array_equal(x, y)
    assert x.min() in (10, 11)
    assert x.max() in (39, 40)
    _, _, x, y = places(one_event(70, 70), Augment(stretch=2 * math.log(2))).T
    assert np.allclose(x * y, 400, atol=45), "the area stays"
    assert x.max() > 35
    assert y.max() > 35
    _, _, x, y = places(one_event(50, 80), Augment(shear=0.5)).T
    assert (y == 30).all()
    assert -15 <= x.min() < -13
    assert 13 < x.max() <= 15


def test_shift_and_jitter_are_uniform() -> None:
    _, _, x, _ = places(one_event(50, 50), Augment(shift=10)).T
    assert (x.reshape(-1, 2)[:, 0] == x.reshape(-1, 2)[:, 1]).all(), "one shift for a recording"
    assert x.std() == pytest.approx(10 / math.sqrt(3), rel=0.1)
    _, _, x, y = places(one_event(50, 50), Augment(jitter=10)).T
    assert (x.reshape(-1, 2)[:, 0] != x.reshape(-1, 2)[:, 1]).mean() > 0.8, "each event its own"
    assert x.std() == pytest.approx(10 / math.sqrt(3), rel=0.1)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.15


def test_time_changes_are_what_they_say() -> None:
    data = one_event(50, 50)
    t = places(data, Augment(time_shift=0.05))[:, 0].reshape(-1, 2)
    assert (t[:, 0] == t[:, 1]).all()
    assert t.std() == pytest.approx(0.05 / math.sqrt(3), rel=0.1)
    assert np.abs(t - 0.1).max() <= 0.05
    t = places(data, Augment(time_jitter=0.05))[:, 0].reshape(-1, 2)
    assert (t[:, 0] != t[:, 1]).all()
    assert np.abs(t - 0.1).max() <= 0.05
    t = places(data, Augment(time_scale=math.log(2)))[:, 0]
    assert 0.05 <= t.min() < 0.053
    assert 0.19 < t.max() <= 0.2


def test_drop_and_blank_lose_the_share_they_say() -> None:
    data = random_set(400, 200, (11,), 5)
    kept = np.diff(augmented(data, Augment(drop=0.6), 1, 0).offsets) / np.maximum(np.diff(data.offsets), 1)
    assert kept.mean() == pytest.approx(0.7, abs=0.03)
    assert kept.std() == pytest.approx(0.6 / math.sqrt(12), abs=0.05), "each recording has its own probability"
    silent = augmented(data, Augment(blank=0.5, blank_time=0.1), 1, 0)
    thirds = silent.batch(range(400), 0.1, 3).reshape(3, 400, -1).any(axis=2)
    had = data.batch(range(400), 0.1, 3).reshape(3, 400, -1).any(axis=2)
    lost = (had & ~thirds)[:, had.all(axis=0)]
    assert lost.sum(axis=0).max() == 1, "one window at most"
    assert lost.any(axis=0).mean() == pytest.approx(0.5, abs=0.08)
    assert lost.mean(axis=1) == pytest.approx([1 / 6] * 3, abs=0.06)
    assert len(augmented(data, Augment(drop=1.0), 1, 0).times) < 0.6 * len(data.times)


def test_channels_shift_by_whole_numbers() -> None:
    n = 3000
    data = EventSet(np.zeros(n), np.full(n, 5), np.arange(n + 1), np.zeros(n, int), np.arange(n), (11,), 0.3, ("a",))
    counts = np.bincount(augmented(data, Augment(channel_shift=2), 0, 0).channels, minlength=11)
    assert set(np.flatnonzero(counts)) == {3, 4, 5, 6, 7}
    assert counts[3:8] == pytest.approx([n / 5] * 5, rel=0.15)
    jittered = augmented(data, Augment(channel_jitter=1.5), 0, 0).channels
    assert np.bincount(jittered, minlength=11)[3:8] == pytest.approx([0, n / 3, n / 3, n / 3, 0], rel=0.15)


def test_elastic_fields_are_smooth_and_have_their_size() -> None:
    field = np.zeros((300, 2, 34, 34))
    with np.errstate(over="ignore"):
        for k, one in enumerate(field):
            kernels.elastic_field(key(0, 0, k), 2.0, 7.0, 34, 34, one)
    assert field.std() == pytest.approx(2.0, rel=0.05)
    assert abs(field.mean()) < 0.1
    assert abs(np.corrcoef(field[:, 0].ravel(), field[:, 1].ravel())[0, 1]) < 0.05
    neighbours = np.corrcoef(field[..., 1:].ravel(), field[..., :-1].ravel())[0, 1]
    far = np.corrcoef(field[..., 28:].ravel(), field[..., :6].ravel())[0, 1]
    assert neighbours > 0.97
    assert abs(far) < 0.1


def test_draws_are_uniform_and_independent() -> None:
    with np.errstate(over="ignore"):
        keys = [key(s, e, 0) for s in range(40) for e in range(25)]
        u = np.array([[kernels.uniform(k, np.uint64(c)) for c in range(8)] for k in keys])
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, 20, (0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 43.8, "chi square, 19 degrees of freedom, p = 0.001"
    off = np.corrcoef(u.T) - np.eye(8)
    assert np.abs(off).max() < 0.13


def test_splitmix_equals_the_published_sequence() -> None:
    """First outputs of splitmix64 from state 1234567 (the reference C code by Vigna, public domain)."""
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    golden = 0x9E3779B97F4A7C15
    with np.errstate(over="ignore"):
        found = [int(kernels.mix(np.uint64((1234567 + (k + 1) * golden) % 2**64))) for k in range(3)]
    assert found == wanted


def test_compiled_equals_python() -> None:
    code = (
        "import hashlib, sys; sys.path.insert(0, 'tests')\n"
        "from event_sets import random_set\n"
        "from neuro.datasets.transforms import Augment, augmented, batch\n"
        "a = Augment(shift=2, rotation=30, elastic=2, jitter=1, drop=0.5, time_jitter=0.02, blank=0.5,\n"
        "            blank_time=0.1, flip=0.5, shear=0.2, stretch=0.3, time_scale=0.1)\n"
        "d = random_set(5, 40, (2, 9, 7), 0); l = random_set(5, 40, (11,), 0)\n"
        "h = hashlib.sha256(batch(d, range(5), 0.01, 30, a, seed=1, epoch=2).tobytes())\n"
        "h.update(batch(l, range(5), 0.01, 30, Augment(channel_shift=2, channel_jitter=1), seed=1).tobytes())\n"
        "h.update(augmented(d, a, 7, 8).times.tobytes()); print(h.hexdigest())"
    )
    digests = set()
    for off in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
            env={**os.environ, "NUMBA_DISABLE_JIT": off},
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_fields_without_a_meaning_for_the_shape_are_named() -> None:
    everything = Augment(**dict.fromkeys((*PLANAR, *LINEAR), 1))
    with pytest.raises(BadConfig) as caught:
        dense(PLANE, everything, 0, 0)
    assert len(caught.value.violations) == len(LINEAR)
    with pytest.raises(BadConfig) as caught:
        dense(LINE, everything, 0, 0)
    assert len(caught.value.violations) == len(PLANAR)


@pytest.mark.parametrize(
    "bad",
    [{"drop": 1.5}, {"shift": -1}, {"rotation": math.nan}, {"scale": math.inf}, {"blank": 0.1}, {"jitter": "x"},
     {"elastic_spacing": 0.5}, {"channel_shift": 0.5}, {"flip": True}],
)  # fmt: skip
def test_bad_amounts_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(BadConfig):
        Augment(**bad)  # type: ignore[arg-type]


def test_bad_batches_are_refused() -> None:
    for indices in ([12], [-1], [[0]]):
        with pytest.raises(BadConfig, match=r"recordings 0\.\.11"):
            dense(PLANE, None, 0, 0, indices=indices)
    with pytest.raises(BadConfig, match="more than"):
        batch(PLANE, range(12), 1e-6, 10_000_000)
    with pytest.raises(BadConfig, match="seed"):
        dense(PLANE, None, -1, 0)
    assert batch(PLANE, [], 0.01, 30).shape == (30, 0, 2, 9, 7)


def test_stabilise_undoes_a_known_movement() -> None:
    rng = np.random.default_rng(3)
    times = np.sort(rng.random(500)).astype(np.float32)
    path = np.stack([np.linspace(10, 30, 20), np.full(20, 16.0)], 1)  # to the right, in 20 steps of 50 ms
    centre = np.interp(times, (np.arange(20) + 0.5) * 0.05, path[:, 0])
    column = np.round(centre + 4).astype(int)  # an edge four pixels right of the moving centre
    moving = EventSet(
        times, 16 * 40 + column, np.array([0, 500]), np.zeros(1, int), np.zeros(1, int), (1, 33, 40), 1.0, ("a",)
    )
    still = stabilise(moving, path, 0.05, 20)
    assert still.shape == (1, 20, 20)
    assert len(still.times) == 500
    assert set((still.channels % 20).tolist()) <= {13, 14}
    assert set((still.channels // 20).tolist()) == {10}
    with pytest.raises(BadConfig):
        stabilise(LINE, path, 0.05, 20)
    with pytest.raises(BadConfig):
        stabilise(moving, np.full((3, 2), np.nan), 0.05, 20)
