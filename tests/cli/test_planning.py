from __future__ import annotations

from dataclasses import replace

import pytest

from anyport.build.costs import BuildCost, PartCost, Speed, StoredAs, TaskCost
from anyport.cli.planning import cost_lines, time_text
from anyport.source import WeightFiles

COST = BuildCost(
    model="blip",
    source="Salesforce/blip",
    task="caption",
    files=WeightFiles({"a.safetensors": 600_000_000, "b.safetensors": 300_000_000}, is_here=False),
    parts=(
        PartCost("vision", 86_000_000, 12, 344_000_000, 200_000, 1_000_000, 1_600_000_000, 300.0),
        PartCost("decoder", 138_000_000, 84, 495_000_000, 400_000, 4_000_000, 900_000_000, 250.0),
    ),
    whole=None,
    variants={"int8": 225_000_000},
    work_bytes=500_000_000,
    asset_bytes=700_000,
    n_parameters=224_000_000,
    model_bytes=896_000_000,
    free_bytes=60_000_000_000,
    free_memory_bytes=16_000_000_000,
    speed=Speed(1e11, 4.5e10),
)


def test_the_lines() -> None:
    assert cost_lines(COST) == [
        "  source    blip, 224.00 M parameters   Salesforce/blip",
        "  download  900.0 MB: 2 files",
        "  part      parameters   cases   in the bundle   time",
        "  vision    86.00 M      12      345.2 MB        5 min",
        "  decoder   138.00 M     84      499.4 MB        4 min",
        "  bundle    about 1.1 GB: 839.0 MB of weights, 5.0 MB of proof, and the rest",
        "  int8      225.0 MB of the bundle",
        "  disk      1.6 GB where the bundle goes; 60.0 GB are free",
        "  memory    about 3.3 GB at the most, in vision; 16.0 GB are free",
        "  time      about 9 min, and compression   at 100 GFLOP/s (45 in float64), if nothing else runs",
    ]


def test_what_is_not_enough_and_what_is_not_known() -> None:
    lines = cost_lines(replace(COST, free_bytes=1_000, free_memory_bytes=None, files=None, variants={}))
    assert lines[1] == "  read      what your function reads: it was called, only it knows what it makes"
    assert lines[-1] == "  NOT ENOUGH disk"
    assert lines[-3] == "  memory    about 3.3 GB at the most, in vision"
    assert cost_lines(replace(COST, free_memory_bytes=5))[-1] == "  NOT ENOUGH memory"


def test_one_file_is_named() -> None:
    files = WeightFiles({"model.safetensors": 4})
    assert cost_lines(replace(COST, files=files))[1] == "  read      4 bytes: model.safetensors"


def test_the_proof_of_a_whole_task_is_a_row() -> None:
    whole = TaskCost("(whole task)", 7, 60, 3_000_000, 900_000_000, 600.0)
    lines = cost_lines(replace(COST, whole=whole))
    assert lines[5].split(maxsplit=3) == ["(whole", "task)", "7", "3.0 MB          10 min"]
    assert lines[6] == "  bundle    about 1.1 GB: 839.0 MB of weights, 8.0 MB of proof, and the rest"
    assert "in vision;" in lines[-2]
    much = replace(COST, whole=replace(whole, memory_bytes=40_000_000_000))
    assert "  memory    about 41.7 GB at the most, in (whole task); 16.0 GB are free" in cost_lines(much)
    assert cost_lines(much)[-2:] == [
        "  NOT ENOUGH memory",
        "  do:       without the proof of the whole task it is less: --allow unproven-task",
    ]
    # where a part needs as much, that would not help, and is not said
    assert cost_lines(replace(COST, whole=whole, free_memory_bytes=5))[-1] == "  NOT ENOUGH memory"


def streamed(way: str, weight_bytes: int, memory_bytes: int) -> BuildCost:
    stored = StoredAs(276_000_000, 3, ("BF16", "F32"))
    big = replace(COST.parts[1], weight_bytes=weight_bytes, stored=stored, export_memory_bytes=memory_bytes)
    return replace(COST, parts=(COST.parts[0], big), model_bytes=344_000_000, variants={}, weights=way)


def test_each_way_of_streaming_is_said() -> None:
    ways = {
        "reference": streamed("reference", 0, 500_000_000),
        "copy": streamed("copy", 276_000_000, 600_000_000),
    }
    cost = replace(COST, ways=ways, free_memory_bytes=3_000_000_000)
    kinds, peaks = "bfloat16 and float32", "export peak 500.0 MB (reference) or 600.0 MB (copy)"
    disk = "disk +4.4 MB (reference) or +280.4 MB (copy)"
    all_of_it = "memory 2.4 GB; disk +850.3 MB (reference) or +1.1 GB (copy); about 9 min"
    others = "--weights reference: memory 2.4 GB, disk 850.3 MB; --weights copy: memory 2.4 GB, disk 1.1 GB"
    assert cost_lines(cost)[-4:] == [
        f"  streamed  decoder 0.14 B {kinds}, 276.0 MB in 3 shards; {peaks}; {disk}; about 4 min",
        f"            in all, with --weights reference or --weights copy: {all_of_it}",
        "  NOT ENOUGH memory",
        f"  do:       {others}",
    ]
    assert cost_lines(replace(cost, free_memory_bytes=None))[-1].startswith(
        "            in all, with --weights "
    )


def test_a_streamed_build_has_its_own_memory() -> None:
    lines = cost_lines(streamed("copy", 276_000_000, 600_000_000))
    assert lines[-3] == "  memory    about 2.4 GB of its own at the most, in vision; 16.0 GB are free"
    assert lines[-1] == (
        "  streamed  decoder 0.14 B bfloat16 and float32, 276.0 MB in 3 shards; "
        "export peak 600.0 MB; disk +280.4 MB; about 4 min"
    )
    one = replace(COST.parts[1], stored=StoredAs(5, 1, ("16-bit",)))
    one = replace(one, n_parameters=99_000_000)
    assert (
        "  streamed  decoder 99.00 M 16-bit, 5 bytes in 1 file; "
        in cost_lines(replace(COST, parts=(one,), weights="copy"))[-1]
    )


def test_files_that_only_an_index_names_are_said() -> None:
    files = WeightFiles({}, absent=("te/a.safetensors", "te/b.safetensors"), absent_bytes=900_000_000)
    lines = cost_lines(replace(COST, files=files))
    assert lines[1] == "  read      900.0 MB: 2 files"
    assert lines[-1] == "  NOT HERE  2 files of weights, which the indexes name: a build needs them"
    lines = cost_lines(replace(COST, files=replace(files, unsized=("vae",))))
    assert lines[1] == "  read      at least 900.0 MB: 2 files"
    assert lines[-1].endswith(": a build needs them; vae without an index")


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (239, "3 min 59 s"), (240, "4 min"), (3599, "60 min"),
     (3600, "1 h 0 min"), (9000, "2 h 30 min"), (90_000, "25 h")],
)  # fmt: skip
def test_times(time_s: float, text: str) -> None:
    assert time_text(time_s) == text
