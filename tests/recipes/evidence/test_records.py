"""Records survive: several processes, repetitions, and damage that is told by its line."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations

import pytest

from recipes.errors import CheckpointError
from recipes.evidence.records import Job, Record, Records

JOB = Job("gates", 0, 0.1, "resnet20", "digits", 500, 28, 2)
RECORD = Record(JOB, 9.5, 10.25, 0.5, 2.5, {"noise": 30.5, "blur": 20.0}, 5784, 23136, 0.125, 60.0, "cpu", "2.6.0")


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path)


def of_seed(seed, **changes):
    return replace(RECORD, job=replace(JOB, seed=seed), **changes)


def test_what_is_added_is_found(records):
    assert records.of(JOB.setting) == [] and records.done(JOB) is None
    records.add(RECORD)
    records.add(replace(RECORD, job=replace(JOB, epochs=3)))
    assert records.of(JOB.setting) == [RECORD] and records.done(JOB) == RECORD
    assert records.done(replace(JOB, lr=0.2)) is None and records.done(replace(JOB, epochs=4)) is None


def test_a_job_has_one_record(records):
    records.add(RECORD)
    records.add(of_seed(1))
    records.add(replace(RECORD, top1=8.0))
    assert [record.top1 for record in records.of(JOB.setting)] == [8.0, 10.25]


def test_the_same_records_are_the_same_bytes(tmp_path):
    several = [of_seed(0), of_seed(1), of_seed(2, corrupted={"blur": 20.0, "noise": 30.5})]
    contents = set()
    for number, order in enumerate(permutations(several)):
        for record in order:
            Records(tmp_path / str(number)).add(record)
        contents.add((tmp_path / str(number) / f"{JOB.setting}.jsonl").read_bytes())
    [content] = contents
    assert content.count(b"\n") == 3 and len(content) / 3 < 400


def test_measurements_are_rounded_and_keys_are_not(records):
    records.add(replace(RECORD, job=replace(JOB, lr=1 / 3), top1=100 / 3, corrupted={"noise": 200 / 3}))
    [found] = records.of(JOB.setting)
    assert (found.job.lr, found.top1, found.corrupted) == (1 / 3, 33.3333, {"noise": 66.6667})
    assert records.done(replace(JOB, lr=1 / 3)) == found


def test_the_first_records_have_no_errors_by_domain(records, tmp_path):
    records.add(replace(RECORD, domains={"noise": 100 / 3}))
    path = tmp_path / f"{JOB.setting}.jsonl"
    assert records.done(JOB).domains == {"noise": 33.3333}
    old = path.read_text().replace(',"domains":{"noise":33.3333}', "")
    assert "domains" not in old
    path.write_text(old)
    assert records.done(JOB) == RECORD


def test_a_training_that_diverged(records):
    records.add(replace(RECORD, loss=math.nan, ece=math.inf, top1=100))
    found = records.done(JOB)
    assert (found.loss, found.ece, found.top1) == (None, None, 100)
    with pytest.raises(CheckpointError, match=r"cannot be recorded .*top1 is None"):
        records.add(replace(RECORD, top1=math.nan))
    assert records.done(JOB) == found


def test_several_at_once_lose_nothing(tmp_path):
    """Each call opens the lock's file itself, so that threads exclude each other as processes do."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: Records(tmp_path).add(of_seed(seed)), range(24)))
    assert [record.job.seed for record in Records(tmp_path).of(JOB.setting)] == [*range(24)]
    assert {path.name for path in tmp_path.iterdir()} <= {f"{JOB.setting}.jsonl", ".lock"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda line: line[:-20], "Unterminated|Expecting"),
        (lambda line: "<<<<<<< HEAD", "Expecting value"),
        (lambda line: "", "Expecting value"),
        (lambda line: "[1]", "no object"),
        (lambda line: "{}", "missing .* 'arm'"),
        (lambda line: line.replace('"job":{', '"job":3,"was":{'), "mapping"),
        (lambda line: line.replace('"held_out"', '"hold_out"'), "hold_out"),
        (lambda line: line.replace('"seed":1,', ""), "seed"),
        (lambda line: line.replace("10.25", '"10.25"'), r"top1 is '10\.25'"),
        (lambda line: line.replace("10.25", "NaN"), "top1 is nan"),
        (lambda line: line.replace("30.5", "null"), r"corrupted\.noise is None"),
        (lambda line: line.replace('{"blur":20.0,"noise":30.5}', "3"), "items"),
        (lambda line: line.replace('"digits"', '"other"'), "of the setting 'resnet20-other-500-2'"),
        (lambda line: line.replace('"seed":1', '"seed":0'), "line 1 is of the same training"),
    ],
)
def test_damage_is_told_by_its_line(records, tmp_path, damage, said):
    for seed in range(3):
        records.add(of_seed(seed))
    path = tmp_path / f"{JOB.setting}.jsonl"
    lines = path.read_text().splitlines()
    changed = damage(lines[1])
    assert changed != lines[1]
    path.write_text("\n".join([lines[0], changed, lines[2]]) + "\n")
    before = path.read_bytes()
    for reads in (lambda: records.of(JOB.setting), lambda: records.done(JOB), lambda: records.add(RECORD)):
        with pytest.raises(CheckpointError, match=rf"{JOB.setting}\.jsonl, line 2: .*({said}).*; remove the line"):
            reads()
    assert path.read_bytes() == before


def test_files_that_are_no_text_or_cannot_be_written(records, tmp_path):
    (tmp_path / f"{JOB.setting}.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=rf"{JOB.setting}\.jsonl: cannot be read"):
        records.of(JOB.setting)
    (tmp_path / f"{JOB.setting}.jsonl").unlink()
    (tmp_path / f"{JOB.setting}.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=rf"{JOB.setting}\.jsonl: cannot be read"):
        records.add(RECORD)
