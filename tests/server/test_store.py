"""The table of jobs: order, once-only claims, idempotency, events, versions, damage."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyform.errors import BadInput
from anyform.server import store as states
from anyform.server.store import KeyReused, Store, StoreFull, is_id, new_id


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "jobs.sqlite3")
    yield opened
    opened.close()


def submit(store: Store, text: str = "a mug", key: str | None = None, most: int = 100) -> str:
    job = new_id()
    found = store.submit(job, {"text": text}, key, text, most)
    assert found is not None
    return found.id


def test_ids_are_ours_unique_and_sorted_by_time() -> None:
    made = [new_id(lambda moment=moment: float(moment)) for moment in range(1, 200)]
    assert made == sorted(made) and len(set(made)) == len(made)
    assert all(is_id(one) and len(one) == 26 for one in made)
    assert not any(is_id(one) for one in ("", "a" * 25, "A" * 26, "../" + "a" * 23, "a" * 25 + "\0", "é" * 26))


def test_first_in_first_out_and_positions(store: Store) -> None:
    made = [submit(store, str(i)) for i in range(5)]
    assert [store.position(job) for job in reversed(store.list(states.QUEUED, 10, None))] == [1, 2, 3, 4, 5]
    claimed = [store.claim() for _ in range(6)]
    assert [job.id for job in claimed if job] == made and claimed[-1] is None


def test_no_job_is_claimed_twice(store: Store) -> None:
    made = {submit(store, str(i)) for i in range(40)}
    claimed: list[str] = []

    def take() -> None:
        while (job := store.claim()) is not None:
            claimed.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 40 and set(claimed) == made


def test_a_key_makes_one_job_even_in_a_race(store: Store) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(submit(store, key="42"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20 and len(set(found)) == 1 and store.count(states.QUEUED) == 1


def test_a_key_with_another_request_is_refused(store: Store) -> None:
    submit(store, "a mug", key="k")
    with pytest.raises(KeyReused):
        submit(store, "a chair", key="k")
    assert store.count(states.QUEUED) == 1


def test_the_queue_has_an_end(store: Store) -> None:
    submit(store)
    assert store.submit(new_id(), {}, None, "", 1) is None and store.count(states.QUEUED) == 1


def test_events_count_up_and_tell_the_whole_story(store: Store) -> None:
    job = submit(store)
    store.claim()
    store.progress(job, "progress", {"stage": "decode"}, {"stage": "decode"})
    assert store.finish(job, states.DONE, result={"seed": 3})
    assert not store.finish(job, states.FAILED, error={"code": "late"})
    store.progress(job, "progress", {"stage": "late"}, {"stage": "late"})
    events = store.events(job, 0)
    assert [event.id for event in events] == [1, 2, 3, 4]
    assert [event.name for event in events] == ["queued", "running", "progress", "done"]
    assert store.events(job, 3) == events[3:]
    found = store.get(job)
    assert found is not None and found.state == states.DONE and found.result == {"seed": 3} and found.error is None


def test_cancelling(store: Store) -> None:
    waiting, running = submit(store, "1"), submit(store, "2")
    assert (first := store.claim()) is not None and first.id == waiting
    found = store.cancel(running)
    assert found is not None and found.state == states.CANCELLED
    found = store.cancel(waiting)
    assert found is not None and found.state == states.RUNNING and found.cancelling
    assert store.cancel(new_id()) is None


def test_requeued_work_keeps_its_place(store: Store) -> None:
    first, second = submit(store, "1"), submit(store, "2")
    store.claim()
    store.requeue(first, "the server stopped", forgive=False)
    again = store.claim()
    assert again is not None and again.id == first and again.attempts == 2
    assert [event.name for event in store.events(first, 0)] == ["queued", "running", "interrupted", "queued", "running"]
    assert store.get(second) is not None


def test_deleting_needs_an_end_and_is_remembered(store: Store) -> None:
    job = submit(store)
    store.delete(job)
    assert store.get(job) is not None and not store.was_deleted(job)
    store.cancel(job)
    store.delete(job)
    assert store.get(job) is None and store.was_deleted(job) and store.events(job, 0) == []


def test_pages_of_a_list_have_no_gap(store: Store) -> None:
    made = [submit(store, str(i)) for i in range(7)]
    seen, before = [], None
    while page := store.list(None, 3, before):
        seen += [job.id for job in page]
        before = page[-1].number
    assert seen == made[::-1]
    assert store.counts() == {**dict.fromkeys(states.STATES, 0), "queued": 7}


def test_what_is_kept_is_the_newest(store: Store) -> None:
    made = [submit(store, str(i)) for i in range(5)]
    for job in made:
        store.cancel(job)
    assert set(store.finished_beyond(2)) == set(made[:3])


@settings(max_examples=30)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    store = Store(tmp_path_factory.mktemp("store") / "jobs.sqlite3")
    job = submit(store, text)
    found = store.get(job)
    store.close()
    assert found is not None and found.request == {"text": text}


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    before = path.read_bytes()
    with pytest.raises(BadInput, match="newer anyform"):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", [0, 30, 4096])
def test_a_damaged_database_is_moved_aside(tmp_path: Path, place: int) -> None:
    path = tmp_path / "jobs.sqlite3"
    store = Store(path)
    submit(store)
    store.close()
    data = bytearray(path.read_bytes())
    data[place : place + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    store = Store(path)
    assert store.is_new and store.counts()["queued"] == 0
    assert (tmp_path / "jobs.sqlite3.damaged").read_bytes() == bytes(data)
    submit(store)
    store.close()


def test_a_full_disk_refuses_writing_and_goes_on_reading(store: Store) -> None:
    job = submit(store)
    store._connection.execute("PRAGMA max_page_count = 8")
    with pytest.raises(StoreFull):
        for i in range(200):
            submit(store, "x" * 3000 + str(i))
    found = store.get(job)
    assert found is not None and found.state == states.QUEUED
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert store.get(submit(store, "room again")) is not None
