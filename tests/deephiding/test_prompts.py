"""Text prompt clustering and ``ue-bench deephiding prompts``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ue_bench.api import EnvironmentProblem, UserError
from ue_bench.cli.main import cli
from ue_bench_deephiding import prompts

from .helpers import DATA, tiny_clip

TOPICS = {
    "train": "a long train on the tracks of a railway station",
    "cat": "a cat sleeping on a warm sofa",
    "pizza": "pizza with cheese and olives on a plate",
    "surf": "a surfer riding a big wave in the ocean",
    "street": "cars waiting at a traffic light in the city",
}


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Eight captions of each of five topics, and some of them twice."""
    path = tmp_path / "my captions.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_id", "source", "prompt"])
        for number, (topic, text) in enumerate(TOPICS.items()):
            for variant in ("red", "blue", "old", "new", "small", "big", "quiet", "sunny"):
                writer.writerow([f"{number:012d}", topic, f"{variant} {topic}, {text}"])
        writer.writerow(["000000000009", "again", "red cat, " + TOPICS["cat"]])
        writer.writerow(["000000000010", "empty", " "])
    return path


def topic_of(text: str) -> str:
    return text.split(",")[0].split()[1]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["deephiding", "prompts", *map(str, arguments)])


def test_prompts_are_read_once_and_ids_stay_text(captions: Path) -> None:
    found = prompts.read_prompts(captions)
    assert len(found) == 40
    assert found[8].image_id == "000000000001"


def test_offline_features_put_topics_together(captions: Path) -> None:
    texts = [prompt.text for prompt in prompts.read_prompts(captions)]
    features = prompts.offline_features(texts)
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    topics = np.array([topic_of(text) for text in texts])
    same = topics[:, None] == topics[None]
    cosines = features @ features.T
    assert cosines[same].mean() > cosines[~same].mean() + 0.5


def test_distinct_takes_one_of_each_group_and_the_member_nearest_to_the_centre() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(5, 8, dtype=np.float32) * 10
    features = np.concatenate([centre + rng.normal(0, 1, (9, 8)) for centre in centres]).astype(np.float32)
    rows = prompts.distinct(features, 5, 5, seed=0)
    assert sorted(row // 9 for row in rows) == [0, 1, 2, 3, 4]
    for row in rows:
        group = features[row // 9 * 9 : row // 9 * 9 + 9]
        assert row % 9 == np.linalg.norm(group - group.mean(axis=0), axis=1).argmin()


def test_distinct_begins_with_the_outlier_and_goes_on_with_what_is_far() -> None:
    on_a_line = np.repeat(np.array([[0.0], [1.0], [2.0], [10.0]], np.float32), 3, axis=0)
    assert [row // 3 for row in prompts.distinct(on_a_line, 3, 4, seed=0)] == [3, 0, 2]


def test_closest_pair_is_the_largest_cosine() -> None:
    angles = np.radians([0, 60, 180])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert prompts.closest_pair(rows) == pytest.approx(0.5, abs=1e-6)


class TestCommand:
    def test_chooses_distinct_prompts_and_writes_them(self, captions: Path, tmp_path: Path) -> None:
        out = tmp_path / "chosen.csv"
        result = run(captions, "--classes", 5, "--clusters", 5, "--out", out)
        assert result.exit_code == 0, result.output
        with out.open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["class"] for row in rows] == list("01234")
        assert {topic_of(row["prompt"]) for row in rows} == set(TOPICS)
        assert result.stdout.splitlines() == [f"{r['class']}\t{r['image_id']}\t{r['prompt']}" for r in rows]
        assert run(captions, "--classes", 5, "--clusters", 5).stdout == result.stdout
        assert isinstance(run(captions, "--clusters", 10, "--out", out).exception, UserError)

    def test_a_small_collection_does_for_random_prompts(self, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text('prompt\n"a cat\non a sofa"\ntwo dogs\nthree trains\n', encoding="utf-8")
        result = run(tmp_path / "x.csv", "--classes", 3, "--random")
        assert result.exit_code == 0, result.output
        assert sorted(line.split("\t")[2] for line in result.stdout.splitlines()) == [
            "a cat on a sofa", "three trains", "two dogs",
        ]  # fmt: skip

    def test_random_prompts_depend_on_the_seed(self, captions: Path) -> None:
        first, again, other = (run(captions, "--random", "--seed", seed).stdout for seed in (0, 0, 1))
        assert first == again != other
        assert len(set(first.splitlines())) == 10

    @pytest.mark.parametrize(
        ("content", "arguments", "message"),
        [
            ("prompt\na\nb\n", [], "holds 2 distinct prompts, 40 are needed"),
            ("prompt\n" + "".join(f"a cat{'!' * n}\n" for n in range(50)), [], "tell 1 prompts apart"),
            ("prompt\n" + "a\nb\nc\n", ["--random"], "holds 3 distinct prompts, 10 are needed"),
            ("text\na\n", [], "has no column 'prompt'"),
            (None, [], "no file"),
            ("prompt\na\n", ["--classes", "9", "--clusters", "8"], "8 clusters give no 9 prompts"),
        ],
    )
    def test_refusals(self, content: str | None, arguments: list[str], message: str, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "x.csv").write_text(content, encoding="utf-8")
        error = run(tmp_path / "x.csv", *arguments).exception
        assert isinstance(error, UserError)
        assert message in str(error)

    def test_coco_captions_come_out_more_distinct_than_random_ones(self) -> None:
        collection = DATA / "coco_30k_prompts.csv"
        if not collection.is_file():
            pytest.skip(f"no captions at {collection}")
        found = prompts.read_prompts(collection)
        features = prompts.offline_features([prompt.text for prompt in found])
        rows = prompts.distinct(features, 10, 40, 0)
        drawn = [np.random.default_rng(seed).permutation(len(found))[:10] for seed in range(20)]
        assert prompts.closest_pair(features[rows]) < 0.2
        assert np.mean([prompts.closest_pair(features[d]) for d in drawn]) > 0.3


class TestClip:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """A CLIP text encoder with random weights and a tokenizer of single bytes."""
        transformers = pytest.importorskip("transformers")
        import torch

        config, _ = tiny_clip(tmp_path / "clip")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            transformers.CLIPTextModelWithProjection(config).save_pretrained(tmp_path / "clip")
        return tmp_path / "clip"

    def test_features_of_a_local_model(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prompts, "BATCH", 2)
        texts = ["a cat", "a dog", "a very long caption of a cat " * 9]
        features = prompts.clip_features(texts, str(model))
        assert features.shape == (3, 16)
        assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
        # Padding does not matter: a text has the same features in any company.
        assert np.allclose(prompts.clip_features(texts[:1], str(model))[0], features[0], atol=1e-5)
        assert prompts.closest_pair(features) < 0.9999

    def test_an_encoder_without_projection_is_refused(self, tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers")
        config, _ = tiny_clip(tmp_path / "clip")
        transformers.CLIPTextModel(config).save_pretrained(tmp_path / "clip")
        with pytest.raises(EnvironmentProblem, match=r"lacks .*text_projection"):
            prompts.clip_features(["a"], str(tmp_path / "clip"))

    def test_a_model_that_is_not_there(self, tmp_path: Path) -> None:
        pytest.importorskip("transformers")
        (tmp_path / "nothing").mkdir()
        with pytest.raises(EnvironmentProblem, match="cannot be loaded"):
            prompts.clip_features(["a"], str(tmp_path / "nothing"))
