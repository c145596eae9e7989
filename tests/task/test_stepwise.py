"""One token after the other: greedy and drawn; every row for itself."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.task.generation import Generation, Sample, Written, fill_left
from anyport.task.stepwise import gather, sampled_scores, write_stepwise
from anyport.task.token_scores import log_softmax
from tests.task import counting

PROMPTS = [[4], [4, 5, 6], [4, 7], [4, 8, 9, 10], [4, 5]]
HOWS = [
    Generation(),
    Generation(repetition_penalty=1.7, min_new_tokens=4),
    Generation(Sample(3), max_new_tokens=12),
    Generation(Sample(1, temperature=2.0, top_k=4, top_p=0.9), repetition_penalty=1.2),
]


def written(prompts: list[list[int]], how: Generation, first: int = 0, end: float = 1.5) -> list[Written]:
    state = counting.state(counting.CountingDecoder(end=end), len(prompts), first)
    tokens = write_stepwise(state, fill_left(prompts, counting.PAD), how, counting.END)
    return gather(tokens, len(prompts))


@pytest.mark.parametrize("how", HOWS)
def test_a_batch_is_its_singles(how: Generation) -> None:
    batch = written(PROMPTS, how)
    singles = [written([prompt], how, i)[0] for i, prompt in enumerate(PROMPTS)]
    assert [one.tokens for one in batch] == [one.tokens for one in singles]
    assert [one.score for one in batch] == pytest.approx([one.score for one in singles], abs=1e-6)
    assert len({len(one.tokens) for one in batch}) > 1


def test_a_row_that_has_ended_is_no_longer_computed() -> None:
    decoder = counting.CountingDecoder(end=1.5)
    state = counting.state(decoder, len(PROMPTS))
    found = gather(write_stepwise(state, fill_left(PROMPTS, 0), Generation(), counting.END), len(PROMPTS))
    lengths = [len(one.tokens) for one in found]
    for step, (n_rows, _) in enumerate(decoder.shapes):
        assert n_rows == sum(length > step for length in lengths)
    assert len(decoder.shapes) == max(lengths)


@pytest.mark.parametrize("how", HOWS)
def test_lengths_are_kept(how: Generation) -> None:
    for one in written(PROMPTS, how):
        assert how.min_new_tokens < len(one.tokens) <= how.max_new_tokens
        assert counting.END not in one.tokens[:-1]
        assert len(one.tokens) == how.max_new_tokens or one.tokens[-1] == counting.END


def test_the_score_is_the_mean_of_the_log_probabilities() -> None:
    [found] = written([[4]], Generation(max_new_tokens=3), end=-9)
    state = counting.state(counting.CountingDecoder(end=-9), 1)
    expected = []
    for token, following in zip((4, *found.tokens), found.tokens, strict=False):
        expected.append(log_softmax(state.read(np.array([[token]])))[0, following])
    assert found.score == pytest.approx(np.mean(expected), abs=1e-6)


def test_the_margin_is_the_least_one_met() -> None:
    [found] = written([[4]], Generation(max_new_tokens=5), end=-9)
    state = counting.state(counting.CountingDecoder(end=-9), 1)
    margins = []
    for token in (4, *found.tokens[:-1]):
        second, first = np.sort(state.read(np.array([[token]]))[0])[-2:]
        margins.append(first - second)
    assert found.margin == pytest.approx(min(margins), abs=1e-6)
    assert written([[4]], Generation(Sample()))[0].margin is None


def test_tokens_come_while_they_are_chosen() -> None:
    decoder = counting.CountingDecoder(end=-9)
    tokens = write_stepwise(counting.state(decoder, 1), fill_left([[4]], 0), Generation(), counting.END)
    for n in (1, 2, 3):
        next(tokens)
        assert len(decoder.shapes) == n


# ── drawing ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_seed_gives_the_same_text_and_another_seed_another() -> None:
    texts = [written([[4]], Generation(Sample(seed)), end=-9)[0].tokens for seed in (0, 0, 1, 2)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_little_temperature_and_one_choice_are_greedy() -> None:
    greedy = [one.tokens for one in written(PROMPTS, Generation())]
    for search in (Sample(5, temperature=1e-4), Sample(5, top_k=1), Sample(5, top_p=1e-6)):
        assert [one.tokens for one in written(PROMPTS, Generation(search))] == greedy


def test_draws_have_the_probabilities_of_the_scores() -> None:
    search = Sample(temperature=1.5, top_k=6, top_p=0.95)
    logits = counting.state(counting.CountingDecoder(), 1).read(np.array([[4]]))
    expected = np.exp(log_softmax(sampled_scores(logits, search)))[0]
    n, counts = 2000, np.zeros(counting.N_VOCABULARY)
    for seed in range(n):
        how = Generation(Sample(seed, 1.5, 6, 0.95), max_new_tokens=1)
        counts[written([[4]], how, end=0)[0].tokens[0]] += 1
    assert counts[expected == 0].sum() == 0
    likely = expected > 0
    chi_squared = ((counts[likely] - n * expected[likely]) ** 2 / (n * expected[likely])).sum()
    assert chi_squared < 25  # 5 degrees of freedom: 1.4 in 10,000 for true draws; the seeds are fixed
