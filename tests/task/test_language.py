import math
import pickle
from dataclasses import replace

import pytest
import torch

from autoprune.identity import identity_of
from autoprune.task.language import EncoderForward, embeddings, token_accuracy, token_loss
from tests.language_models import CAUSAL, ENCODERS, PASSAGES, POSITIONS, TINY, VOCABULARY


@pytest.mark.parametrize("family", CAUSAL)
def test_logits_at_the_judged_positions_are_the_models_own(family: str) -> None:
    task = TINY[family]()
    windows = task.data.search.inputs[:5]
    with torch.inference_mode():
        logits, whole = task.forward(task.model, windows), task.model(input_ids=windows).logits
    assert logits.shape == (5, len(POSITIONS), VOCABULARY)
    torch.testing.assert_close(logits, whole[:, list(POSITIONS)])


@pytest.mark.parametrize("family", ENCODERS)
def test_what_fills_samples_up_changes_no_embedding(family: str) -> None:
    task = TINY[family]()
    assert isinstance(task.forward, EncoderForward)
    pad, rows = task.forward.pad, task.data.search.inputs[:8]
    with torch.inference_mode():
        whole = embeddings(task.model, rows, pad=pad)
        alone = torch.cat([embeddings(task.model, row[row != pad].unsqueeze(0), pad=pad) for row in rows])
        logits = task.forward(task.model, rows)
    assert logits.shape == (8, PASSAGES)
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(8))
    torch.testing.assert_close(logits, whole @ task.forward.bank.T / 0.05)


@pytest.mark.parametrize("family", ENCODERS)
def test_the_dense_network_finds_most_passages(family: str) -> None:
    task = TINY[family]()
    with torch.inference_mode():
        outputs = task.forward(task.model, task.data.test.inputs)
    assert task.metric(outputs, task.data.test.targets) > 5 / PASSAGES


def test_known_losses_and_accuracies() -> None:
    targets = torch.tensor([[0, 1], [2, 3]])
    assert token_loss(torch.zeros(2, 2, 7), targets).item() == pytest.approx(math.log(7))
    sure = 100 * torch.nn.functional.one_hot(targets, 7).float()
    assert token_loss(sure, targets).item() == pytest.approx(0, abs=1e-6)
    assert token_accuracy(sure, targets) == 1
    assert token_accuracy(sure, torch.tensor([[0, 1], [2, 0]])) == 0.75


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_task_can_be_sent_and_is_the_same_there(family: str) -> None:
    task = TINY[family]()
    there = pickle.loads(pickle.dumps(task))
    for part in ("forward", "metric", "loss", "model"):
        assert identity_of(getattr(there, part)) == identity_of(getattr(task, part))


def test_other_passages_are_another_question() -> None:
    forward = TINY["bert"]().forward
    assert isinstance(forward, EncoderForward)
    assert identity_of(replace(forward, bank=forward.bank.flip(0))) != identity_of(forward)
