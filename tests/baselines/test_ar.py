"""Golden values were measured with the authors' released generator; everything else follows from the recurrence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from real import REFERENCE

import ue_bench_baselines.ar
from ue_bench.api import Context, UserError
from ue_bench_baselines import ar_search
from ue_bench_baselines.ar import AR, shipped
from ue_bench_baselines.ar_process import draw_start, l2_norms, responses, run, scale

from .helpers import difference, image_set, random_set

COEFFICIENTS = REFERENCE / "ar_coefficients_reference.json"


def formula_coefficients() -> NDArray[np.float64]:
    c, u, v = np.ogrid[:3, :3, :3]
    counts = ((7 * u + 5 * v + 3 * c) % 5 + 1).astype(float)
    counts[:, 2, 2] = 0
    found: NDArray[np.float64] = counts / counts.sum(axis=(1, 2), keepdims=True)
    return found


def formula_start() -> NDArray[np.float32]:
    c, i, j = np.ogrid[:3, :36, :36]
    found: NDArray[np.float32] = (((13 * i + 7 * j + 5 * c + 3 * i * j) % 17 - 8) / 8).astype(np.float32)
    return found


def table(processes: int) -> NDArray[np.float64]:
    return np.array(shipped(processes)["coefficients"])


def signals(coefficients: NDArray[np.float64], seed: int, size: tuple[int, int] = (32, 32)) -> NDArray[np.float32]:
    """One perturbation of L2 norm 1 for each process."""
    generator = np.random.default_rng(seed)
    starts = np.stack([draw_start(generator, size[0] + 4, size[1] + 4) for _ in coefficients])
    return scale(run(coefficients, starts)[:, 4:, 4:], "2", 1.0)


def test_golden_signal_without_randomness() -> None:
    signal = run(formula_coefficients()[None], formula_start()[None])[:, 4:, 4:]
    d = scale(signal, "2", 1.0)[0].transpose(2, 0, 1)

    assert l2_norms(signal)[0] == pytest.approx(7.6259546, abs=1e-5)
    assert d[0, 0, 0] == pytest.approx(-2.910475e-02, abs=1e-6)
    assert d[0, 5, 7] == pytest.approx(-3.802560e-02, abs=1e-6)
    assert d[0, 31, 31] == pytest.approx(-4.386484e-03, abs=1e-6)
    assert d[1, 0, 31] == pytest.approx(5.644093e-03, abs=1e-6)
    assert d[1, 16, 16] == pytest.approx(-1.999740e-03, abs=1e-6)
    assert d[2, 31, 0] == pytest.approx(-5.769610e-02, abs=1e-6)
    assert d[2, 31, 31] == pytest.approx(1.045817e-02, abs=1e-6)


def test_golden_signal_scaled_to_linf() -> None:
    signal = run(formula_coefficients()[None], formula_start()[None])[:, 4:, 4:]
    d = scale(signal, "inf", 8 / 255)[0].transpose(2, 0, 1)

    assert np.abs(signal).max() == pytest.approx(0.49569339, abs=1e-6)
    assert d[0, 0, 0] == pytest.approx(-1.404736e-02, abs=1e-6)
    assert d[2, 31, 31] == pytest.approx(5.047622e-03, abs=1e-6)


@pytest.fixture(scope="module")
def reference() -> dict[str, list[object]]:
    if not COEFFICIENTS.exists():
        pytest.skip("the authors' coefficients are not in ../shared/reference of this checkout")
    found: dict[str, list[object]] = json.loads(COEFFICIENTS.read_text())
    return found


def test_golden_signal_of_the_authors_coefficients(reference: dict[str, list[object]]) -> None:
    import torch

    coefficients = np.array(reference["classes_10_threshold_10"])[:1]
    start = torch.randn(3, 36, 36, generator=torch.Generator().manual_seed(0)).numpy()
    signal = run(coefficients, start[None])[:, 4:, 4:]
    d = scale(signal, "2", 1.0)[0].transpose(2, 0, 1)

    assert l2_norms(signal)[0] == pytest.approx(25.361055, abs=1e-4)
    assert d[0, 0, :4] == pytest.approx([2.023648e-03, 2.366520e-02, -7.503134e-03, -2.144882e-02], abs=1e-6)
    assert d[2, 31, 28:] == pytest.approx([7.655190e-04, 5.474871e-04, 2.424295e-04, -1.338652e-04], abs=1e-6)


def test_every_signal_of_the_authors_coefficients_is_recognised(reference: dict[str, list[object]]) -> None:
    for name in ("classes_10_threshold_10", "classes_100_threshold_3"):
        coefficients = np.array(reference[name])
        assert coefficients.sum(axis=(2, 3)) == pytest.approx(np.ones(coefficients.shape[:2]), abs=2.5e-4)
        guessed = [responses(d, coefficients).argmin() for d in signals(coefficients, seed=0)]
        assert guessed == list(range(len(coefficients)))


def test_agrees_with_the_recurrence_written_as_loops() -> None:
    b = table(10)[3:4]
    start = np.random.default_rng(0).normal(size=(3, 9, 14)).astype(np.float32)

    s = start.astype(np.float64)
    for i in range(9 - 2):
        for j in range(14 - 2):
            for c in range(3):
                s[c, i + 2, j + 2] = (b[0, c] * s[c, i : i + 3, j : j + 3]).sum()  # b[c, 2, 2] is 0

    assert run(b, start[None])[0].transpose(2, 0, 1) == pytest.approx(s, abs=1e-5)


def test_only_the_first_rows_and_columns_of_the_start_matter() -> None:
    start = np.random.default_rng(0).normal(size=(3, 9, 14)).astype(np.float32)
    border = start.copy()
    border[:, 2:, 2:] = 0

    assert np.array_equal(run(table(10)[:1], start[None]), run(table(10)[:1], border[None]))


@pytest.mark.parametrize("processes", [10, 100])
def test_own_filter_leaves_nothing(processes: int) -> None:
    coefficients = table(processes)
    for d, b in zip(signals(coefficients, seed=1), coefficients, strict=True):
        filters = b - np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1]])
        windows = np.lib.stride_tricks.sliding_window_view(d.astype(np.float64), (3, 3), axis=(0, 1))
        assert windows.shape[:2] == (30, 30)
        residual = np.einsum("ijcuv,cuv->ijc", windows, filters)
        assert np.abs(residual).max() < 5e-8


@pytest.mark.parametrize("size", [(32, 32), (20, 33)], ids=str)
@pytest.mark.parametrize("processes", [10, 100])
@pytest.mark.parametrize("levels", [None, 255], ids=["float", "bytes"])
def test_every_signal_is_recognised(processes: int, size: tuple[int, int], levels: int | None) -> None:
    coefficients = table(processes)
    for seed in range(100 // processes):
        perturbations = signals(coefficients, seed, size)
        if levels:
            perturbations = np.floor(perturbations * levels + 0.5) / np.float32(levels)
        guessed = [responses(d, coefficients).argmin() for d in perturbations]
        assert guessed == list(range(processes))


@pytest.mark.parametrize("processes", [10, 100])
def test_shipped_tables_are_normalised(processes: int) -> None:
    coefficients = table(processes)

    assert coefficients.shape == (processes, 3, 3, 3)
    assert (coefficients[:, :, 2, 2] == 0).all()
    assert coefficients.sum(axis=(2, 3)) == pytest.approx(np.ones((processes, 3)), abs=5e-6)  # 6 digits each


@pytest.mark.parametrize("processes", [10, 100])
def test_shipped_tables_say_how_they_were_made(processes: int) -> None:
    made = shipped(processes)

    assert made["command"].split()[2:] == [
        "ue_bench_baselines.ar_search", "--classes", str(made["classes"]),
        "--threshold", f"{made['threshold']:g}", "--seed", str(made["seed"]),
    ]  # fmt: skip
    assert made["candidates"] > made["classes"]


@pytest.mark.parametrize(("processes", "some"), [(10, 4), (100, 12)])
def test_search_finds_the_first_processes_of_the_shipped_tables(processes: int, some: int) -> None:
    made = shipped(processes)

    found = ar_search.search(some, made["threshold"], made["seed"])

    assert found["coefficients"] == made["coefficients"][:some]
    assert found["candidates"] < made["candidates"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [10, 100])
def test_command_reproduces_the_shipped_tables(processes: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(ue_bench_baselines.ar.__file__).with_name(f"ar_coefficients_{processes}.json")
    arguments = shipped(processes)["command"].split()[3:]

    assert ar_search.main(arguments) == 0

    assert capsys.readouterr().out == path.read_text()


def test_search_does_not_depend_on_how_many_are_wanted() -> None:
    assert ar_search.search(2, 3, 7)["coefficients"] == ar_search.search(5, 3, 7)["coefficients"][:2]


def test_search_depends_on_the_seed() -> None:
    assert ar_search.search(1, 3, 0)["coefficients"] != ar_search.search(1, 3, 1)["coefficients"]


def test_search_gives_up_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"300 candidates gave \d of 5 autoregressive processes at threshold 1000"):
        ar_search.search(5, 1000, 0, max_candidates=300)

    assert ar_search.main(["--classes", "5", "--threshold", "1000", "--max-candidates", "300"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_exported_norm_is_one_at_32_pixels(ctx: Context) -> None:
    data = random_set(size=(32, 32), low=60, high=190)

    norms = np.sqrt((difference(AR().protect(data, ctx), data).astype(float) ** 2).sum(axis=(1, 2, 3))) / 255

    assert norms == pytest.approx(np.ones(len(data)), abs=0.01)  # nothing is clipped; rounding adds a little


@pytest.mark.parametrize(
    ("ar", "size", "bound"),
    [
        (AR(), (32, 32), 1.0),
        (AR(), (96, 96), 3.0),  # as the release sets it for STL-10
        (AR(), (224, 224), 7.0),
        (AR(), (16, 64), 1.0),
        (AR(eps=2.5), (96, 96), 2.5),
        (AR(p="inf"), (96, 96), 8 / 255),
    ],
)
def test_bound_scales_with_the_side_unless_given(ar: AR, size: tuple[int, int], bound: float) -> None:
    assert ar.bound(size) == pytest.approx(bound)


def test_perturbations_are_of_the_process_of_their_class(ctx: Context) -> None:
    labels = np.arange(40) % 7
    data = image_set(np.full((40, 32, 32, 3), 128, np.uint8), labels, classes=7)

    change = difference(AR().protect(data, ctx), data).astype(np.float32) / 255

    assert [int(responses(d, table(10)).argmin()) for d in change] == labels.tolist()
    assert len({d.tobytes() for d in change}) == 40


def test_start_noise_belongs_to_the_index_alone(ctx: Context) -> None:
    data = random_set()
    first = image_set(data.images[:20], data.labels[:20], data.num_classes)

    assert np.array_equal(AR().protect(first, ctx).images, AR().protect(data, ctx).images[:20])


@pytest.mark.parametrize(("classes", "processes"), [(1, 10), (3, 10), (10, 10), (11, 100), (50, 100), (100, 100)])
def test_shipped_tables_serve_fewer_classes(classes: int, processes: int, ctx: Context) -> None:
    assert np.array_equal(AR().coefficients(classes, ctx), table(processes)[:classes])


def test_more_classes_are_searched_for_once(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def search(classes: int, threshold: float, seed: int) -> dict[str, object]:
        asked.append((classes, threshold, seed))
        return {"coefficients": [kernel.tolist() for kernel in np.resize(table(10), (classes, 3, 3, 3))]}

    monkeypatch.setattr(ue_bench_baselines.ar, "search", search)

    assert AR().coefficients(101, ctx).shape == (101, 3, 3, 3)
    assert AR().coefficients(101, ctx).shape == (101, 3, 3, 3)
    AR(threshold=2).coefficients(101, ctx)
    AR(threshold=2).coefficients(5, ctx)

    assert asked == [(101, 3.0, 0), (101, 2.0, 0), (5, 2.0, 0)]


def test_a_searched_table_comes_back_from_the_cache_unchanged(ctx: Context) -> None:
    expected = np.array(ar_search.search(4, 2, seed=0)["coefficients"])

    assert np.array_equal(AR(threshold=2).coefficients(4, ctx), expected)
    assert np.array_equal(AR(threshold=2).coefficients(4, ctx), expected)
