"""Laws of events: nothing is lost or made up between events, dense arrays and bins."""

from __future__ import annotations

import numpy as np
from axon_strategies import LAW, events
from hypothesis import given
from hypothesis import strategies as st

from neuro.events import Events, EventSet


@LAW
@given(events())
def test_dense_holds_each_place_once(sample: Events) -> None:
    dense = sample.to_dense()
    assert dense.sum() == len(set(zip(sample.t.tolist(), sample.x.tolist(), strict=True)))
    again = Events.from_dense(dense, sample.dt)
    np.testing.assert_array_equal(again.to_dense(), dense)
    assert (again.shape, again.steps, again.dt) == (sample.shape, sample.steps, sample.dt)


@LAW
@given(st.data())
def test_binning_conserves_events(data: st.DataObject) -> None:
    """Every event inside the window is in exactly the bin of its time, none elsewhere, whatever the batch."""
    dt = data.draw(st.sampled_from([1e-3, 1e-4, 0.01, 1 / 3]))
    steps = data.draw(st.integers(1, 12))
    n = 5
    # in millionths of a step: exact places, so that the wanted bin is an integer division
    place = st.integers(0, 15_000_000) | st.integers(0, 15).map(lambda k: k * 1_000_000)
    samples = data.draw(st.lists(st.lists(st.tuples(place, st.integers(0, n - 1)), max_size=8), min_size=1, max_size=4))
    samples = [sorted(sample) for sample in samples]
    data_set = EventSet(
        times=np.array([p * 1e-6 * dt for sample in samples for p, _ in sample], np.float32),
        channels=np.array([c for sample in samples for _, c in sample], np.int32),
        offsets=np.cumsum([0, *map(len, samples)]),
        labels=np.zeros(len(samples), np.int64),
        groups=np.arange(len(samples)),
        shape=(n,),
        duration=16 * dt,
        classes=("only",),
    )
    batch = data_set.batch(range(len(samples)), dt, steps)
    for k, sample in enumerate(samples):
        # float32 resolves 1e-7 of a time: places nearer than that to the next bin may go there
        inside = [(p, c) for p, c in sample if (p + 8) // 1_000_000 == p // 1_000_000]
        wanted = {(p // 1_000_000, c) for p, c in inside if p // 1_000_000 < steps}
        found = set(zip(*map(np.ndarray.tolist, np.nonzero(batch[:, k])), strict=True))
        near = {(p // 1_000_000 + 1, c) for p, c in sample} | {(p // 1_000_000, c) for p, c in sample}
        assert wanted <= found <= near
        np.testing.assert_array_equal(data_set.events(k, dt, steps).to_dense(), batch[:, k])
    order = data.draw(st.permutations(range(len(samples))))
    np.testing.assert_array_equal(data_set.subset(order).batch(range(len(samples)), dt, steps), batch[:, order])
