from __future__ import annotations

import numpy as np
import pytest

from anyport.errors import InputError, UsageError
from anyport.task import TaskOptions
from anyport.task.graphs import OpenGraphs
from anyport.task.opening import TASKS
from anyport.task.trials import (
    MAX_TEXTS,
    TRIALS,
    check_tokens,
    open_trial,
    text_spec,
    texts_of,
    vocabulary_of,
)
from anyport.tensors import Signature, tensor
from tests.task import blip


def test_the_table_names_tasks_that_there_are_in_order() -> None:
    assert list(TRIALS) == sorted(TRIALS)
    assert set(TRIALS) <= set(TASKS)
    for entry in TRIALS.values():
        assert entry.n_texts <= MAX_TEXTS
        assert len(set(entry.texts)) == len(entry.texts) >= max(entry.n_texts, entry.least_texts)


@pytest.mark.parametrize("task", TRIALS)
def test_a_trial_is_opened_from_sessions_that_are_open(task: str) -> None:
    graphs = blip.graphs(task)
    sessions = {part: graphs.open(part, TaskOptions()) for part in graphs.parts}
    lent = OpenGraphs(task, graphs.settings, graphs.parts, sessions, graphs.read_bytes)
    trial = open_trial(lent)
    assert set(trial.parts) <= set(graphs.parts)
    assert tuple(spec.name for spec in trial.outputs) == TRIALS[task].outputs
    assert (trial.inputs, trial.outputs) == (trial.signature.inputs, trial.signature.outputs)
    trial.close()
    lent.close()
    assert all(session.is_open for session in sessions.values())


def test_texts_go_around_and_none_comes_twice() -> None:
    assert texts_of(["a", "b", "c"], 4, 2) == ["b", "c"]
    assert texts_of(["a", "b"], 1, 4) == ["b", "a"]


def test_a_task_without_a_trial_is_refused() -> None:
    with pytest.raises(UsageError) as err:
        open_trial(OpenGraphs("classify", {}, {}, {}, lambda _: b""))
    assert err.value.what == (
        "the task 'classify' cannot be judged as a whole: known are answer, caption, embed, match"
    )


def test_tokens_that_the_model_does_not_have_are_refused() -> None:
    spec, dims = text_spec(10)
    assert dims["texts"].high == MAX_TEXTS
    check_tokens({"texts": np.array([[[0, 9]]])}, [spec])
    for token in (-1, 10):
        with pytest.raises(InputError) as err:
            check_tokens({"texts": np.array([[[0, token]]])}, [spec])
        assert err.value.what == f"'texts' holds the token {token}, the model has 0 to 9"


def test_a_part_must_say_which_tokens_it_takes() -> None:
    said = Signature((tensor("input_ids", "int64[batch, n] 0..30"),), ())
    assert vocabulary_of(said, "text_encoder") == 31
    with pytest.raises(UsageError, match="part 'text_encoder' does not say which tokens it takes"):
        vocabulary_of(Signature((tensor("input_ids", "int64[batch, n]"),), ()), "text_encoder")
