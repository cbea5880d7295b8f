from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ue_bench.schedule.graph import Graph, Task

from .helpers import task


def keys_in_order(graph: Graph) -> list[str]:
    """Keys in the order in which one worker would run them."""
    found = []
    while one := graph.take():
        found.append(one.key)
        graph.finish(one)
    return found


def test_given_order_holds_among_equals() -> None:
    assert keys_in_order(Graph([task("b"), task("a"), task("c")])) == ["b", "a", "c"]


def test_a_long_chain_is_not_left_for_the_end_but_the_first_result_comes_by_the_shortest_way() -> None:
    tasks = [task("short"), task("end", needs=("begin",), weight=5), task("begin", weight=0.1)]
    assert keys_in_order(Graph(tasks)) == ["begin", "short", "end"]


def test_need_that_is_no_task_counts_as_met() -> None:
    assert keys_in_order(Graph([task("train", needs=("protected long ago",))])) == ["train"]


def test_task_that_was_put_back_is_taken_again() -> None:
    graph = Graph([task("a"), task("b")])
    first = graph.take()
    assert first is not None
    graph.put_back(first)
    assert keys_in_order(graph) == ["a", "b"]


def test_drop_takes_everything_behind_a_task_and_nothing_else() -> None:
    tasks = [task("protect"), task("purify", needs=("protect",)), task("train", needs=("protect", "purify")), task("x")]
    graph = Graph(tasks)
    protect = graph.take()
    assert protect is not None
    assert [t.key for t in graph.drop(protect)] == ["purify", "train"]
    assert keys_in_order(graph) == ["x"]


def test_tasks_that_wait_for_each_other_never_start() -> None:
    graph = Graph([task("a", needs=("b",)), task("b", needs=("a",)), task("c")])
    assert keys_in_order(graph) == ["c"]
    assert set(graph.waiting) == {"a", "b"}


def test_chain_longer_than_the_stack() -> None:
    chain = [task(str(i), needs=(str(i - 1),)) for i in range(20_000)]
    assert keys_in_order(Graph(chain[::-1])) == [t.key for t in chain]
    graph = Graph(chain)
    first = graph.take()
    assert first is not None
    assert len(graph.drop(first)) == 19_999


@given(st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=4), st.floats(0, 10)), max_size=30))
def test_every_task_once_and_after_its_needs(shape: list[tuple[list[int], float]]) -> None:
    tasks = []
    for i, (needs, weight) in enumerate(shape):
        tasks.append(Task(str(i), str(i), None, tuple(str(n) for n in needs if n < i), weight))
    order = keys_in_order(Graph(tasks))
    assert sorted(order) == sorted(t.key for t in tasks)
    rank = {key: i for i, key in enumerate(order)}
    assert all(rank[need] < rank[t.key] for t in tasks for need in t.needs)


def simulated(tasks: list[Task], width: int) -> tuple[float, float, float]:
    """How long tasks take on ``width`` slots, what share of it these work, and when the first result comes."""
    graph, now, busy, started = Graph(tasks, width), 0.0, 0.0, 0
    ends = {t.key for t in tasks} - {need for t in tasks for need in t.needs}
    running: list[tuple[float, int, Task]] = []
    first = 0.0
    while True:
        while len(running) < width and (one := graph.take()):
            started += 1
            busy += one.weight
            heapq.heappush(running, (now + one.weight, started, one))
        if not running:
            assert not graph.waiting
            return now, busy / (now * width), first
        now, _, done = heapq.heappop(running)
        graph.finish(done)
        first = first or (now if done.key in ends else 0.0)


@pytest.mark.parametrize("protect", [(2.0,), (2.0, 2.0, 5.0, 60.0, 200.0)], ids=["quick", "slow"])
@pytest.mark.parametrize("columns", [(10.0,), (10.0, 10.0, 12.0, 20.0, 80.0)], ids=["alike", "different"])
def test_a_large_board_has_results_from_the_first_minutes_and_busy_slots(
    protect: tuple[float, ...], columns: tuple[float, ...]
) -> None:
    whole, share, first = simulated(large_board(protect, columns), 8)
    assert share >= 0.95
    assert first <= 0.01 * whole


@pytest.mark.parametrize("protect", [30.0, 60.0, 200.0])
def test_where_protection_takes_long_the_first_result_comes_as_soon_as_it_can(protect: float) -> None:
    """No order has it earlier than one protection and one cell; with 30 cells' time each that is 2.8 % of the run."""
    _, share, first = simulated(large_board((protect,), (1.0,)), 8)
    assert first == protect + 1
    assert share >= 0.95


def large_board(protect: tuple[float, ...], columns: tuple[float, ...]) -> list[Task]:
    """130 protectors before 39 columns: 5,070 cells."""
    tasks = []
    for row in range(130):
        tasks.append(task(f"p{row}", weight=protect[row % len(protect)]))
        tasks += [
            task(f"p{row}c{column}", needs=(f"p{row}",), weight=columns[column % len(columns)]) for column in range(39)
        ]
    return tasks


def test_long_openings_do_not_all_go_first() -> None:
    tasks = [task(f"p{row}", weight=30) for row in range(20)]
    tasks += [task(f"p{row}c{n}", needs=(f"p{row}",), weight=10) for row in range(20) for n in range(20)]
    order = keys_in_order(Graph(tasks, 4))
    assert order.index("p0c0") < 10
    assert sum("c" not in key for key in order[:100]) < 10
