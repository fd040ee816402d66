import pytest
import torch

from fastface.timing import Stopwatch, silent


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Event:
    """A CUDA event on a device that is as far as `Event.reached`."""

    clock = Clock()
    reached = float("inf")
    made = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        Event.made += 1

    def record(self, stream: object) -> None:
        self.at = Event.clock.now

    def query(self) -> bool:
        return self.at <= Event.reached

    def elapsed_time(self, end: "Event") -> float:
        assert self.query()
        assert end.query()
        return 1e3 * (end.at - self.at)


@pytest.fixture(params=["cpu", "cuda"])
def watch_and_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Stopwatch, Clock]:
    """Give a stopwatch of each kind, the GPU's with events of our own."""
    Event.clock, Event.reached, Event.made = Clock(), float("inf"), 0
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    return Stopwatch(torch.device(request.param), Event.clock), Event.clock


def test_parts_add_up_over_micro_batches_and_average_over_steps(watch_and_clock: tuple[Stopwatch, Clock]) -> None:
    watch, clock = watch_and_clock
    for step in range(4):
        for _ in range(3):
            with watch("data"):
                clock.now += 0.001
            clock.now += 0.5  # belongs to no part
            with watch("forward"):
                clock.now += 0.010 * (step + 1)
        clock.now += 7
        watch.end_step()
    taken = watch.take()
    assert taken == pytest.approx({"data": 3.0, "forward": 3 * 10 * (1 + 2 + 3 + 4) / 4})
    assert watch.take() == {}


def test_an_inner_part_is_taken_out_of_the_outer_one(watch_and_clock: tuple[Stopwatch, Clock]) -> None:
    watch, clock = watch_and_clock
    with watch("forward"):
        clock.now += 0.002
        with watch("mining"):
            clock.now += 0.005
            with watch("mining"):
                clock.now += 0.001
        clock.now += 0.003
        with watch("forward"):
            clock.now += 0.004
    watch.end_step()
    assert watch.take() == pytest.approx({"forward": 9.0, "mining": 6.0})


def test_a_part_that_fails_is_left(watch_and_clock: tuple[Stopwatch, Clock]) -> None:
    watch, clock = watch_and_clock

    def fail() -> None:
        with watch("forward"):
            clock.now += 0.002
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    watch.end_step()
    assert watch.take() == pytest.approx({"forward": 2.0})
    with pytest.raises(AssertionError, match="forward"), watch("forward"):
        watch.end_step()


@pytest.mark.parametrize("watch_and_clock", ["cuda"], indirect=True)
def test_steps_the_device_has_not_finished_wait_for_the_next_time(watch_and_clock: tuple[Stopwatch, Clock]) -> None:
    watch, clock = watch_and_clock
    ends = []
    for milliseconds in (1, 2, 6):
        with watch("forward"):
            clock.now += milliseconds / 1e3
        watch.end_step()
        ends.append(clock.now)
    Event.reached = ends[0] - 0.0005
    assert watch.take() == {}
    Event.reached = ends[1]
    assert watch.take() == pytest.approx({"forward": 1.5})
    Event.reached = ends[2]
    assert watch.take() == pytest.approx({"forward": 6.0})
    for _ in range(3):
        with watch("forward"):
            clock.now += 0.001
        watch.end_step()
    assert Event.made == 6, "events are used again"


def test_the_real_clock_is_read() -> None:
    import time

    watch = Stopwatch(torch.device("cpu"))
    with watch("data"):
        time.sleep(0.002)
    watch.end_step()
    assert watch.take()["data"] >= 2.0


def test_silence_times_nothing() -> None:
    with silent("mining") as nothing:
        assert nothing is None


@pytest.mark.gpu
def test_events_time_the_device_without_waiting_for_it() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    a = torch.randn(2048, 2048, device=device)
    a @ a  # loads the library
    torch.cuda.synchronize()
    watch = Stopwatch(device)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            with watch("forward"):
                b = a @ a
                with watch("mining"):
                    b = b @ a
            watch.end_step()
        early = watch.take()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    torch.cuda.synchronize()
    late = watch.take()
    assert early or late
    for taken in filter(None, (early, late)):
        assert taken["forward"] > 0
        assert taken["mining"] > 0
