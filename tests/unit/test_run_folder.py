from __future__ import annotations

from pathlib import Path

import pytest

from cluster.run_folder import StageFolder, written_aside


def test_a_stage_that_was_interrupted_finds_its_files_again(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "stage1")
    stage.claim("a")
    (stage.path / "log.jsonl").write_text("kept")

    stage.claim("a")

    assert (stage.path / "log.jsonl").read_text() == "kept"


def test_what_other_settings_left_is_set_aside_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = StageFolder(tmp_path / "stage1")
    for settings in ("a", "b", "c"):
        stage.claim(settings)
        (stage.path / "log.jsonl").write_text(settings)

    found = {path.name: (path / "log.jsonl").read_text() for path in tmp_path.iterdir()}

    assert found == {"stage1": "c", "stage1.1": "a", "stage1.2": "b"}
    assert "moved to" in caplog.text


def test_it_is_told_which_settings_were_others_where_that_was_written_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = StageFolder(tmp_path / "stage1")
    stage.claim("a")
    stage.claim("b", settings={"stage1": {"steps": 5, "optimizer": {"learning_rate": 1.0}}})
    stage.claim("c", settings={"stage1": {"steps": 7, "optimizer": {"learning_rate": 1.0}}})
    stage.claim("c", "others")
    stage.claim("c", "of", settings={"stage1": {"steps": 7}})

    found = [record.getMessage().partition(" comes from other ")[2] for record in caplog.records[::2]]

    assert found == ["settings", "settings: stage1.steps was 5, is 7", "data"]


def test_a_folder_that_nobody_claimed_is_not_taken_over(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "stage1")
    stage.path.mkdir()
    (stage.path / "precious").write_text("x")

    stage.claim("a")

    assert (tmp_path / "stage1.1" / "precious").exists()
    assert not (stage.path / "precious").exists()


def test_weights_that_were_asked_for_of_others_are_told_to_go_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = StageFolder(tmp_path / "stage3")
    stage.claim("a")
    stage.weights.write_text("{}")

    stage.claim("b")

    assert not stage.weights.exists()
    assert "`caliber reweight` asked for go with it" in caplog.text


def test_weights_that_were_asked_for_before_it_began_stay(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "stage3")
    stage.path.mkdir()
    stage.weights.write_text("{}")
    (stage.path / f".{stage.weights.name}.123").write_text("of one that was killed")

    stage.start_anew(force=False)
    stage.claim("a")

    assert stage.weights.read_text() == "{}"


@pytest.mark.parametrize("left", ["checkpoints/step-000001", "model"])
def test_a_stage_with_something_to_lose_starts_anew_only_by_force_and_loses_nothing(tmp_path: Path, left: str) -> None:
    stage = StageFolder(tmp_path / "stage3")
    (stage.path / left).mkdir(parents=True)
    (stage.path / left / "weights").write_text("precious")

    with pytest.raises(ValueError, match=rf"--fresh would start stage3 anew, .*{left.split('/')[0]}: leave .* --force"):
        stage.start_anew(force=False)
    before = [path.name for path in tmp_path.iterdir()]
    stage.start_anew(force=True)

    assert before == ["stage3"]
    assert [path.name for path in tmp_path.iterdir()] == ["stage3.1"]
    assert (tmp_path / "stage3.1" / left / "weights").read_text() == "precious"


def test_a_stage_that_came_to_nothing_starts_anew_without_force(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "stage3")
    stage.start_anew(force=False)  # there is none yet
    stage.claim("a")
    stage.checkpoints.mkdir()

    stage.start_anew(force=False)

    assert [path.name for path in tmp_path.iterdir()] == ["stage3.1"]


def test_only_the_settings_that_ended_a_stage_find_it_finished(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "stage1")
    stage.claim("a")
    assert not stage.finished("training", "a")

    stage.finish("training", "a")

    assert stage.finished("training", "a")
    assert not stage.finished("training", "b")
    assert not stage.finished("evaluation", "a")


def test_a_folder_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "model"
    with written_aside(final) as aside:
        (aside / "weights").write_text("old")

    with pytest.raises(OSError, match="disk full"), written_aside(final) as aside:
        (aside / "weights").write_text("half")
        raise OSError("disk full")

    assert (final / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_whole_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "model"
    for text in ("old", "new"):
        with written_aside(final) as aside:
            (aside / text).write_text(text)

    assert [path.name for path in final.iterdir()] == ["new"]
    assert final.stat().st_mode & 0o777 == 0o755
