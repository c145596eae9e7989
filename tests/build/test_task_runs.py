"""What a whole task runs is counted without numbers, and is what it runs with numbers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from anyport.build.task_runs import task_runs
from anyport.recipe.qwen_edit import load, outline
from anyport.source import TorchSession
from anyport.task.graphs import OpenGraphs
from anyport.task.rehearsals import rehearse
from tests.recipe.qwen_folders import write_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from anyport.recipe import Part


class Counting(TorchSession):
    """PyTorch in the place of a graph; its runs are counted."""

    def __init__(self, part: Part, counts: Counter[Any]) -> None:
        super().__init__(part)
        self.counted, self.counts = part, counts

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes: dict[str, int] = {}
        for spec in self.counted.signature.inputs:
            spec.check(feeds[spec.name], self.counted.signature.dims, sizes)
        self.counts[self.counted.name, tuple(sorted(sizes.items()))] += 1
        return super().run(feeds)


def test_every_run_is_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "Tiny-Edit")
    found, model = task_runs(outline(folder), {}), load(folder)
    counts: Counter[Any] = Counter()
    sessions = {part.name: Counting(part, counts) for part in model.parts}
    parts = {part.name: part.signature for part in model.parts}
    graphs = OpenGraphs(model.task, model.settings, parts, sessions, model.assets.__getitem__)
    assert model.task_requests is not None
    requests = list(model.task_requests())
    answers = [rehearse(graphs, request) for request in requests]
    assert found.n_requests == len(requests) == 7
    assert found.counts == counts
    assert sum(n for (part, _), n in counts.items() if part == "transformer") == 42
    given = [one for r in requests for one in (*r.pictures, *r.arrays.values())]
    n_bytes = sum(one.nbytes for one in (*given, *(answer.picture for answer in answers)))
    assert found.proof_bytes == n_bytes + sum(one.nbytes for one in answers[0].between.values())


def test_the_users_settings_count(tmp_path: Path) -> None:
    """Pictures as the model sees them are seen in the last request alone."""
    model = outline(write_folder(tmp_path / "Tiny-Edit"))
    picture = dict(model.settings["picture"]) | {"vae_area": 512 * 512}
    plain, small = task_runs(model, {}), task_runs(model, {"picture": picture})
    sizes = [max(dict(s)["height"] for (part, s), _ in found.counts.items() if part == "vae_encoder")
             for found in (plain, small)]  # fmt: skip
    assert sizes[0] > 800 > sizes[1]
    assert sum(plain.counts.values()) == sum(small.counts.values())
