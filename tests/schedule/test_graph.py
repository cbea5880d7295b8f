from __future__ import annotations

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
