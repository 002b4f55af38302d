"""Who gets which piece of work, and what becomes of the pieces of workers that die."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from nla_audit.errors import UserError
from nla_audit.runs.pool import Pool, WorkerLost
from tests.runs.crews import Dies, HereCrew


def square(number: int) -> int:
    return number * number


def run(crew: HereCrew, size: int, pieces: int) -> tuple[list[tuple[int, int]], list[str]]:
    said: list[str] = []
    pool = Pool(crew, size, start_seconds=0.05)
    done = list(pool.each(((number, number) for number in range(pieces)), said.append))
    pool.close()
    return done, said


def at_random(seed: int) -> Dies:
    """Every twelfth piece, about, kills its worker."""
    draw = random.Random(seed)
    return lambda worker, done: draw.random() < 1 / 12


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_piece_is_done_once(size: int) -> None:
    crew = HereCrew(do=square)
    done, said = run(crew, size, 40)
    assert sorted(done) == [(number, number**2) for number in range(40)]
    assert len({worker for worker, _ in crew.done}) == size
    assert (crew.started, crew.alive, said) == (size, set(), [])


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_or_doubled_where_workers_die(seed: int) -> None:
    crew = HereCrew(at_random(seed), square, seed=seed)
    done, said = run(crew, 3, 60)
    assert sorted(done) == [(number, number**2) for number in range(60)]
    assert len(said) == crew.started - 3 > 0
    assert all("done again by another" in sentence for sentence in said)


def test_work_is_taken_only_as_it_is_done() -> None:
    taken = 0

    def source() -> object:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number, number

    pool = Pool(HereCrew(do=square), 3)
    for done, _ in enumerate(pool.each(source(), print), start=1):
        assert taken <= done + 2 * 3
    assert taken == 1000


def test_a_piece_that_kills_everybody_ends_the_run() -> None:
    killed = HereCrew(lambda worker, done: worker == 1 or done == 4, square)
    with pytest.raises(UserError, match=r"3 workers died of the same piece.*it was unplugged"):
        run(HereCrew(lambda worker, done: True, square), 2, 9)
    done, _ = run(killed, 2, 20)  # a worker that always dies ends nothing
    assert len(done) == 20


def test_of_two_pieces_in_hand_the_one_in_work_is_suspected() -> None:
    """Ray may tell of the second first."""

    class Backwards(HereCrew):
        killed = 0

        def finished(self, tickets: Sequence[Any], seconds: float) -> Sequence[Hashable]:
            starting = [ticket for ticket in tickets if self._work[ticket] is None]
            return starting[:1] or [max(tickets, key=lambda ticket: ticket[1])]

        def result(self, ticket: Any) -> Any:
            if self._work[ticket] is None:
                return super().result(ticket)
            self.killed += 1
            raise WorkerLost("it was unplugged")

    crew = Backwards(do=square)
    pool = Pool(crew, 1)
    with pytest.raises(UserError, match="3 workers died of the same piece"):
        list(pool.each(((number, number) for number in range(6)), lambda _: None))
    assert crew.killed == 3  # were the second suspected as well, it would take more


def test_nobody_comes() -> None:
    with pytest.raises(UserError, match="no worker started in 0 s: each needs 1 CPU"):
        run(HereCrew(do=square, room=0), 2, 3)


def test_what_is_waited_for_is_told_once() -> None:
    said: list[str] = []
    pool = Pool(HereCrew(do=square, room=0), 2, start_seconds=0.3, tell_seconds=0.0)
    with pytest.raises(UserError, match="no worker started"):
        list(pool.each([(0, 0)], said.append))
    assert [line.split(",")[0] for line in said] == [
        "no worker yet after 0 s: waiting for 1 CPU to be free on a node of the cluster"
    ]
    assert run(HereCrew(do=square), 2, 3)[1] == []


def test_fewer_come_than_asked_for() -> None:
    crew = HereCrew(do=square, room=1)
    done, _ = run(crew, 4, 10)
    assert len(done) == 10
    assert {worker for worker, _ in crew.done} == {0}


def test_workers_that_die_as_they_start() -> None:
    class Stillborn(HereCrew):
        def result(self, ticket: object) -> object:
            raise WorkerLost("no such module")

    with pytest.raises(UserError, match=r"die as they start \(no such module\)"):
        run(Stillborn(), 2, 3)


def test_whoever_works_when_the_run_ends_is_stopped() -> None:
    crew = HereCrew(do=square)
    pool = Pool(crew, 2)
    work = pool.each(((number, number) for number in range(9)), print)
    next(work)
    assert crew.alive
    work.close()
    assert not crew.alive & {worker for worker, _ in crew.done}
    assert len(list(pool.each([(0, 5)], print))) == 1  # with new ones in their place
