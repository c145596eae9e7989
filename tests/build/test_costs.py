from __future__ import annotations

import json
from dataclasses import replace

from anyport.build.costs import BuildCost, PartCost, Speed, StoredAs, TaskCost

WHOLE = TaskCost("(whole task)", 7, 60, 3_000_000, 2_000_000_000, 600.0)
COST = BuildCost(
    model="edit",
    source="edit",
    task="edit",
    files=None,
    parts=(
        PartCost("vae", 86_000_000, 12, 344_000_000, 200_000, 1_000_000, 1_600_000_000, 300.0),
        PartCost("transformer", 138_000_000, 84, 495_000_000, 400_000, 4_000_000, 900_000_000, 250.0),
    ),
    whole=WHOLE,
    variants={"int8": 225_000_000},
    work_bytes=500_000_000,
    asset_bytes=700_000,
    n_parameters=224_000_000,
    model_bytes=896_000_000,
    free_bytes=1_500_000_000,
    free_memory_bytes=3_500_000_000,
    speed=Speed(1e11, 4.5e10),
)
STORED = StoredAs(276_000_000, 3, ("BF16", "F32"))
LIGHT = replace(
    COST,
    parts=(
        COST.parts[0],
        replace(COST.parts[1], weight_bytes=0, stored=STORED, export_memory_bytes=500_000_000),
    ),
    model_bytes=344_000_000,
    weights="reference",
)


def test_sums() -> None:
    parts = 344_000_000 + 200_000 + 1_000_000 + 495_000_000 + 400_000 + 4_000_000
    assert COST.bundle_bytes == parts + 225_000_000 + 700_000 + 3_000_000
    assert COST.disk_bytes == COST.bundle_bytes + 500_000_000
    assert (COST.largest_part, COST.time_s) == ("(whole task)", 7 + 8.96 + 550 + 600)
    assert COST.memory_bytes == round(650_000_000 + 1.2 * 896_000_000) + 2_000_000_000
    # of its own alone, and of weights only those that are loaded
    assert LIGHT.memory_bytes == round(420_000_000 + 1.2 * 344_000_000) + 2_000_000_000
    assert COST.disk_bytes - LIGHT.disk_bytes == 495_000_000


def test_what_would_be_enough() -> None:
    assert (COST.lacks, COST.is_enough) == (("disk", "memory"), False)
    proof = "without the proof of the whole task it is less: --allow unproven-task"
    assert COST.ways_out(COST.lacks) == [proof]
    ways = {"reference": LIGHT, "copy": replace(LIGHT, parts=COST.parts, weights="copy")}
    assert [cost.lacks for cost in ways.values()] == [(), ("disk",)]
    both = replace(COST, ways=ways)
    assert both.ways_out(("disk", "memory")) == ["--weights reference: memory 2.8 GB, disk 1.1 GB", proof]
    assert both.ways_out(("disk",)) == ["--weights reference: memory 2.8 GB, disk 1.1 GB"]
    assert both.ways_out(("memory",))[1:] == ["--weights copy: memory 2.8 GB, disk 1.6 GB", proof]
    part = replace(both, whole=replace(WHOLE, memory_bytes=5))
    assert part.largest_part == "vae"
    assert proof not in part.ways_out(("memory",))


def test_json_has_each_way() -> None:
    record = json.loads(json.dumps(replace(COST, ways={"reference": LIGHT}).to_json()))
    assert record["weights"] is None
    assert [part["stored"] for part in record["parts"]] == [None, None]
    light = record["ways"]["reference"]
    assert light["parts"][1]["stored"] == {"n_bytes": 276_000_000, "n_files": 3, "dtypes": ["BF16", "F32"]}
    assert light["parts"][1]["export_memory_bytes"] == 500_000_000
    assert light["disk_bytes"] == LIGHT.disk_bytes
    assert light["memory_bytes"] == LIGHT.memory_bytes
    assert (light["lacks"], LIGHT.to_json()["ways"], LIGHT.to_json()["weights"]) == ([], {}, "reference")
