"""A run's folder and its mirror: a real second folder, fsspec's own memory, a bucket over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from cluster.cli import main
from cluster.mirror import Mirror, MirrorError, mirrored
from configs.derive import problems
from configs.load import load_recipe
from configs.schema import Mirror as Settings
from tests.unit.full_disk import files_of_at_most

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
RUN = {
    "recipe.yaml": "name: run",
    "stage3/log.jsonl": "{}\n",
    "stage3/checkpoints/step-000010/shard.pt": "ten",
    "stage3/rollouts/0.rollouts": "responses",
    "stage3/training-done.json": "{}",
}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a server that talks S3 over HTTP, where the libraries of S3 look for it."""
    from moto.server import ThreadedMotoServer  # here: it takes a second to import

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("runs")
        yield "s3://runs"
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/far/away"
        return
    if request.param == "s3":
        yield f"{request.getfixturevalue('bucket')}/{uuid4().hex}/run"
        return
    folder = f"memory://{uuid4().hex}/run"
    yield folder
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for name, text in RUN.items():
        write(folder / name, text)
    return folder


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the mirror's clock says."""
    said = [0.0]
    monkeypatch.setattr("cluster.mirror.time", SimpleNamespace(monotonic=lambda: said[0]))
    return said


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def there(address: str) -> dict[str, str]:
    storage, root = fsspec.url_to_fs(address)
    return {path.removeprefix(root).lstrip("/"): storage.cat_file(path).decode() for path in storage.find(root)}


def here(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_mirror_has_what_the_folder_has_but_for_rollouts_until_the_end_and_what_is_being_written(
    run: Path, address: str
) -> None:
    write(run / "stage3/checkpoints/.step-000020/shard.pt", "twe")
    write(run / "stage3/.log.jsonl", "half")

    Mirror(run, address).send(whole=False)
    on_the_way = there(address)
    Mirror(run, address).send(whole=True)

    assert on_the_way == {name: text for name, text in RUN.items() if "rollouts" not in name}
    assert there(address) == RUN


def test_only_what_changed_is_copied_again_also_by_the_next_job(
    run: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, copied = Mirror(run, address), []
    mirror.send(whole=True)
    storage = fsspec.url_to_fs(address)[0]  # fsspec gives everyone the same one
    put_file = storage.put_file

    def noted(source: str, *rest: object, **more: object) -> None:
        copied.append(Path(source).relative_to(run).as_posix())
        put_file(source, *rest, **more)

    monkeypatch.setattr(storage, "put_file", noted)
    write(run / "stage3/log.jsonl", "{}\n{}\n")
    mirror.send(whole=True)
    write(run / "stage3/checkpoints/step-000010/shard.pt", "TEN")  # of the same size
    Mirror(run, address).send(whole=True)

    assert copied == ["stage3/log.jsonl", "stage3/checkpoints/step-000010/shard.pt"]
    assert there(address) == here(run)


def test_what_the_folder_no_longer_has_is_removed(run: Path, address: str) -> None:
    Mirror(run, address).send(whole=True)
    shutil.rmtree(run / "stage3" / "checkpoints" / "step-000010")
    write(run / "stage3/checkpoints/step-000020/shard.pt", "twenty")

    Mirror(run, address).send(whole=False)  # rollouts that it does not copy now it does not remove either

    assert there(address) == here(run)


def test_a_folder_that_is_not_there_is_fetched_and_nothing_of_it_is_copied_again(
    run: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Mirror(run, address).send(whole=True)
    shutil.rmtree(run)

    Mirror(run, address).fetch()
    assert here(run) == RUN
    monkeypatch.setattr(fsspec.url_to_fs(address)[0], "put_file", lambda *_, **__: pytest.fail("copied again"))
    Mirror(run, address).send(whole=True)


def test_a_folder_that_is_there_stays_as_it_is_and_one_without_a_mirror_is_not_made(run: Path, address: str) -> None:
    Mirror(run, address).send(whole=True)
    write(run / "stage3/log.jsonl", "newer")

    Mirror(run, address).fetch()
    Mirror(run.with_name("other"), f"{address}-other").fetch()

    assert (run / "stage3/log.jsonl").read_text() == "newer"
    assert not run.with_name("other").exists()


def test_a_folder_is_refused_where_the_mirror_has_what_it_never_sent_and_both_are_left_as_they_are(
    run: Path, address: str
) -> None:
    Mirror(run, address).send(whole=True)
    other = run.with_name("other")
    write(other / "recipe.yaml", "name: run")  # of a job that was begun without the address

    with pytest.raises(MirrorError, match=f"{other} is here, and {address} has 5 files .*recipe.yaml.* move {other} "):
        Mirror(other, address).fetch()

    assert here(other) == {"recipe.yaml": "name: run"}
    assert there(address) == RUN


def test_an_older_folder_is_refused_where_another_one_has_gone_on(run: Path, address: str) -> None:
    Mirror(run, address).send(whole=True)
    newer = run.with_name("newer")
    mirror = Mirror(newer, address)
    mirror.fetch()
    shutil.rmtree(newer / "stage3" / "checkpoints" / "step-000010")
    write(newer / "stage3/checkpoints/step-000020/shard.pt", "twenty")
    Mirror(newer, address).send(whole=True)

    with pytest.raises(MirrorError, match=r"has 1 files that did not come from it, stage3/checkpoints/step-000020/"):
        Mirror(run, address).fetch()

    assert there(address) == here(newer)


def test_what_others_have_put_there_is_not_removed(run: Path, address: str) -> None:
    others = "stage3/checkpoints/step-000020/shard.pt", "stage2/training-done.json"
    storage, root = fsspec.url_to_fs(address)
    for name in others:
        storage.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        storage.pipe_file(f"{root}/{name}", b"others")
    Mirror(run, address).send(whole=True)
    shutil.rmtree(run / "stage3" / "checkpoints")

    Mirror(run, address).send(whole=True)

    assert there(address) == here(run) | dict.fromkeys(others, "others")


def test_what_a_trial_of_the_run_has_put_there_and_what_a_storage_keeps_for_itself_refuses_nobody(
    run: Path, address: str
) -> None:
    trial = run.with_name("trial")
    write(trial / "recipe.yaml", "name: trial")
    Mirror(trial, f"{address}/tune/seed-1").send(whole=True)
    storage, root = fsspec.url_to_fs(address)
    storage.pipe_file(f"{root}/.nfs0001", b"")

    Mirror(run, address).fetch()


def test_a_copy_whose_process_is_killed_is_known_to_be_the_folders(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, put_file, next_jobs = f"file://{tmp_path}/away", LocalFileSystem.put_file, []

    def looked_at(self: object, *given: object, **more: object) -> None:
        put_file(self, *given, **more)  # type: ignore[arg-type]
        Mirror(run, address).fetch()  # as after a kill at this place
        next_jobs.append(given)

    monkeypatch.setattr(LocalFileSystem, "put_file", looked_at)
    Mirror(run, address).send(whole=True)

    assert len(next_jobs) == len(RUN)


def test_a_record_that_the_disk_takes_a_part_of_leaves_the_one_before_it(run: Path, tmp_path: Path) -> None:
    mirror = Mirror(run, f"file://{tmp_path}/away")
    mirror.send(whole=True)
    write(run / "stage3/log.jsonl", "{}\n{}\n")

    with files_of_at_most(20), pytest.raises(MirrorError, match=r"mirrored\.json cannot be written"):
        mirror.send(whole=True)

    Mirror(run, f"file://{tmp_path}/away").fetch()
    assert (run / "stage3/log.jsonl").read_text() == "{}\n{}\n"


def test_a_mirror_that_cannot_be_reached_stops_only_a_folder_that_never_was_copied_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known, unknown = f"file://{tmp_path}/away", f"file://{tmp_path}/elsewhere"
    Mirror(run, known).send(whole=True)

    def cut(*_: object, **__: object) -> None:
        raise ConnectionError("the line is cut")

    monkeypatch.setattr(LocalFileSystem, "find", cut)
    Mirror(run, known).fetch()
    assert f"NOT COMPARED with {run}, which is gone on from: {known} cannot be looked into" in caplog.text
    with pytest.raises(MirrorError, match="the line is cut"):
        Mirror(run, unknown).fetch()


def test_a_mirror_whose_files_lead_elsewhere_is_not_fetched(run: Path) -> None:
    storage = fsspec.filesystem("memory")
    storage.pipe_file("/mirror/recipe.yaml", b"name: run")
    storage.store["/mirror/../evil"] = storage.store["/mirror/recipe.yaml"]

    with pytest.raises(MirrorError, match=r"\.\./evil leads out of the folder"):
        Mirror(run.with_name("new"), "memory://mirror").fetch()

    storage.store.clear()
    assert sorted(os.listdir(run.parent)) == ["run"]


def test_a_stage_counts_as_done_in_the_mirror_only_while_all_of_it_is_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, put_file = f"file://{tmp_path}/away", LocalFileSystem.put_file
    mirror = Mirror(run, address)
    mirror.send(whole=True)
    write(run / "stage3/model/weights", "anew")
    write(run / "stage3/training-done.json", "{ }")

    def broken(self: object, source: str, *rest: object, **more: object) -> None:
        if source.endswith("weights"):
            raise ConnectionError("the line is cut")
        put_file(self, source, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(MirrorError, match="the line is cut"):
        patch.setattr(LocalFileSystem, "put_file", broken)
        mirror.send(whole=True)
    interrupted = there(address)
    mirror.send(whole=True)

    assert "stage3/training-done.json" not in interrupted
    assert there(address) == here(run)


def test_a_run_is_copied_now_and_then_and_whole_at_its_end_whatever_fails_meanwhile(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address, put_file, failing = f"file://{tmp_path}/away", LocalFileSystem.put_file, [True]

    def sometimes(self: object, *given: object, **more: object) -> None:
        if failing:
            failing.pop()
            raise ConnectionError("the line is cut")
        put_file(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalFileSystem, "put_file", sometimes)

    async def job() -> None:
        async with mirrored(run, Settings(address=address, seconds_between_copies=0.02)):
            while "stage3/log.jsonl" not in there(address):
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(job(), 60))

    assert "NOT MIRRORED, the next copy is tried in 0 s: " in caplog.text
    assert there(address) == RUN


def test_a_record_of_the_copies_that_cannot_be_written_is_tried_again_too(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address, record = f"file://{tmp_path}/away", run / ".mirrored.json"

    async def job() -> None:
        async with mirrored(run, Settings(address=address, seconds_between_copies=0.02)):
            record.mkdir()  # in the place of the file
            while "cannot be written" not in caplog.text:
                await asyncio.sleep(0.01)
            record.rmdir()

    asyncio.run(asyncio.wait_for(job(), 60))

    assert "NOT MIRRORED, the next copy is tried in 0 s: " in caplog.text
    assert there(address) == RUN
    assert record.is_file()


@pytest.mark.parametrize("failure", [None, KeyError("why the job ends")])
def test_a_last_copy_that_fails_is_the_jobs_failure_unless_it_has_one(
    run: Path, tmp_path: Path, failure: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "away").write_text("no folder")

    async def job() -> None:
        async with mirrored(run, Settings(address=f"file://{tmp_path}/away/run")):
            if failure is not None:
                raise failure

    with pytest.raises(MirrorError if failure is None else KeyError):
        asyncio.run(job())
    assert ("NOT MIRRORED: " in caplog.text) == (failure is not None)


def test_a_last_copy_that_takes_too_long_is_given_up_and_the_next_goes_on_from_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: list[float]
) -> None:
    address, put_file = f"file://{tmp_path}/away", LocalFileSystem.put_file

    def slow(self: object, *given: object, **more: object) -> None:
        now[0] += 0.1
        put_file(self, *given, **more)  # type: ignore[arg-type]

    async def job(seconds: float) -> None:
        async with mirrored(run, Settings(address=address, seconds_for_last_copy=seconds)):
            pass

    monkeypatch.setattr(LocalFileSystem, "put_file", slow)
    with pytest.raises(MirrorError, match=f"1 of {len(RUN)} files are copied after 0 s"):
        asyncio.run(job(0.05))
    assert len(there(address)) == 1
    assert not [name for name in there(address) if name.endswith("-done.json")]

    asyncio.run(job(60.0))
    assert there(address) == RUN


def test_a_copy_that_is_under_way_as_the_job_ends_leaves_the_rest_to_the_last_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: list[float]
) -> None:
    address, put_file, copied = f"file://{tmp_path}/away", LocalFileSystem.put_file, []
    over = threading.Event()

    async def job() -> None:
        ends = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(self: object, source: str, *given: object, **more: object) -> None:
            copied.append(source)
            loop.call_soon_threadsafe(ends.set)
            assert over.wait(60)  # the job's end comes while the first file is copied
            now[0] += 1.0
            put_file(self, source, *given, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(LocalFileSystem, "put_file", slow)
        async with mirrored(run, Settings(address=address, seconds_between_copies=0.01, seconds_for_last_copy=0.5)):
            await ends.wait()
            loop.call_soon(over.set)  # once the block, which has nothing left to wait for, has ended

    with pytest.raises(MirrorError, match=r"1 of \d+ files are copied after 0 s"):
        asyncio.run(job())
    assert len(copied) == 2  # one of the copy that was under way, one of the last, which has its own limit


def test_without_an_address_there_is_no_mirror(run: Path) -> None:
    async def job() -> None:
        async with mirrored(run, Settings()):
            pass

    before = sorted(os.listdir(run))
    asyncio.run(job())
    assert sorted(os.listdir(run)) == before


def test_an_address_of_a_storage_that_is_not_installed_or_not_known_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["rl", str(DEMO), f"output={tmp_path}/run", "mirror.address=nowhere://bucket/run"])

    assert code == 2
    assert "mirror.address: nowhere://bucket/run: Protocol not known: nowhere" in capsys.readouterr().err


def test_a_password_in_the_address_is_a_problem() -> None:
    (problem,) = problems(load_recipe(DEMO, ["mirror.address=ftp://me:secret@host/run"]))

    assert problem.startswith("mirror.address: it holds a password")
    assert "secret" not in problem


def test_a_job_on_a_machine_that_has_nothing_begins_with_what_the_mirror_has(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"file://{tmp_path}/away"
    (run / "stage2").mkdir()
    Mirror(run, address).send(whole=True)
    shutil.rmtree(run)

    main(["rl", str(DEMO), f"output={run}", f"data.root={tmp_path}/data", f"mirror.address={address}"])

    assert json.loads((run / "stage3/training-done.json").read_text()) == {}
    assert "stage 3 starts from" in capsys.readouterr().err  # there was no model of stage 2


def test_a_job_whose_folder_is_not_the_mirrors_is_refused_as_it_begins(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"file://{tmp_path}/away"
    Mirror(run, address).send(whole=True)
    (run / ".mirrored.json").unlink()

    code = main(["rl", str(DEMO), f"output={run}", f"data.root={tmp_path}/data", f"mirror.address={address}"])

    assert code == 2
    assert f"{run} is here, and {address} has 5 files that did not come from it" in capsys.readouterr().err
    assert there(address) == RUN
