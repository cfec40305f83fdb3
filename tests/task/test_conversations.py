"""Files of messages, prompts with completions and instructions: what is read of them, and that answers are judged."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.evaluation.judge import Judge
from autoprune.task.conversations import Completion, Conversation, document_of, is_written, tokens_of, written_documents
from autoprune.task.corpora import documents
from autoprune.task.default_metrics import IGNORED
from autoprune.task.huggingface import hf_causal_lm
from autoprune.task.language import AnswerForward, token_accuracy, token_loss
from autoprune.task.language_measures import perplexity
from autoprune.task.task import Role, Roles, Task
from autoprune.task.text import Sizes, Sources, causal_data, judged_positions, own_positions
from tests.language_models import VOCABULARY, causal_task
from tests.task.pretrained_models import model_folder

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}|{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@dataclass(frozen=True)
class Letters:
    """A tokenizer of bytes whose template is `TEMPLATE`, written out."""

    pad_token_id: int | None = 0
    eos_token: str | None = "$"
    chat_template: str | None = TEMPLATE

    def __call__(self, text: str | list[str], **options: Any) -> Mapping[str, Any]:
        assert isinstance(text, str)
        return {"input_ids": list(text.encode())}

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        assert not tokenize
        written = "".join(f"[{m['role']}]{m['content']}|" for m in messages)
        return written + ("[assistant]" if add_generation_prompt else "")


@dataclass(frozen=True)
class Pairs(Letters):
    """Two letters are a token, wherever they stand, so that a prompt's last one may share one with its answer."""

    def __call__(self, text: str | list[str], **options: Any) -> Mapping[str, Any]:
        assert isinstance(text, str)
        return {"input_ids": [hash(text[at : at + 2]) for at in range(0, len(text), 2)]}


def judged_text(document: Any, tokenizer: Letters) -> str:
    tokens, judged = tokens_of(document, tokenizer, between="\n\n")
    return "".join(chr(token) if of_answer else "." for token, of_answer in zip(tokens, judged, strict=True))


def test_answers_are_what_the_template_writes_behind_the_prompt() -> None:
    turns = (("system", "S"), ("user", "hi"), ("assistant", "yes"), ("user", "so"), ("assistant", "no"))
    assert judged_text(Conversation(turns), Letters()) == "." * 30 + "yes|" + "." * 20 + "no|"
    assert judged_text(Completion("ab", "cd"), Letters()) == "..cd$"
    assert judged_text(Completion("ab", "cd"), Letters(eos_token=None)) == "..cd\n\n"
    assert judged_text("all", Letters()) == "all\n\n"


def test_a_token_that_holds_the_answers_first_letter_is_judged() -> None:
    assert tokens_of(Completion("abc", "de"), Pairs(eos_token="$"), between="")[1] == [False, True, True]
    assert tokens_of(Completion("ab", "cd"), Pairs(eos_token="$"), between="")[1] == [False, True, True]


def test_an_answer_that_is_written_otherwise_later_is_read_and_not_judged() -> None:
    class Thoughtless(Letters):
        def apply_chat_template(self, messages: Any, **options: Any) -> str:
            last = len(messages) - 1
            bare = [m if at == last else {**m, "content": m["content"].split("/")[-1]} for at, m in enumerate(messages)]
            return super().apply_chat_template(bare, **options)

    turns = (("user", "a"), ("assistant", "hm/b"), ("user", "c"), ("assistant", "hm/d"))
    shown = judged_text(Conversation(turns), Thoughtless())
    assert shown.endswith("hm/d|")
    assert shown.count("b") == 0


ROWS: list[tuple[Any, Any]] = [
    (
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        Conversation((("user", "q"), ("assistant", "a"))),
    ),
    (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        Conversation((("user", "q"), ("assistant", "a"))),
    ),
    ({"prompt": "q", "completion": "a"}, Completion("q", "a")),
    (
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
        Conversation((("user", "q"), ("assistant", "a"))),
    ),
    (
        {"instruction": "do", "input": "x", "output": "a"},
        Conversation((("user", "do\n\nx"), ("assistant", "a")), Completion("do\n\nx\n\n", "a")),
    ),
    (
        {"instruction": "do", "output": "a"},
        Conversation((("user", "do"), ("assistant", "a")), Completion("do\n\n", "a")),
    ),
    ({"text": "plain"}, "plain"),
]


@pytest.mark.parametrize(("row", "document"), ROWS)
def test_rows_of_data_sets_are_known_by_their_columns(row: Any, document: Any) -> None:
    """But for a text, whose column may be called as it likes."""
    assert is_written({**row, "id": 7}) == (document != "plain")


@pytest.mark.parametrize(("row", "document"), ROWS)
def test_every_form_is_read_of_lines_and_of_lists(row: Any, document: Any, tmp_path: Path) -> None:
    lines, listed = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_text(f"{json.dumps(row)}\n\n{json.dumps({'text': 'more'})}\n", encoding="utf-8")
    listed.write_text(json.dumps([row, {"text": "more"}]), encoding="utf-8")
    for path in (lines, listed):
        assert list(documents(str(path))) == [document, "more"]


def test_instructions_need_no_template_and_messages_do() -> None:
    bare = Letters(chat_template=None)
    assert judged_text(document_of({"instruction": "do", "output": "a"}, "x"), bare) == "....a$"
    with pytest.raises(ValueError, match="this one has none; give"):
        tokens_of(Conversation((("assistant", "a"),)), bare, between="")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", r"a\.jsonl, line 2 is no JSON"),
        ("[1]", r"a\.jsonl.*2 is"),
        ('{"question": "q"}', r"2 is \['question'\]"),
        ('{"messages": [{"role": "user", "content": "q"}]}', "'assistant'"),
        ('{"messages": [{"role": "user", "content": ["q"]}]}', "line 2 has a message that is no"),
    ],
)
def test_what_is_no_such_line_is_a_sentence(line: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=why):
        list(written_documents(path))


def test_a_json_file_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"text": "x"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json holds no list"):
        list(written_documents(path))


def conversations(folder: Path, name: str, count: int) -> str:
    path = folder / name
    rows = [{"prompt": f"{name}{i:03}?", "completion": f"={i:03}"} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def test_windows_are_judged_where_an_answer_follows(tmp_path: Path) -> None:
    asked, plain = conversations(tmp_path, "c.jsonl", 60), tmp_path / "plain"
    plain.write_text("\n\n".join(f"paragraph {i:03}" for i in range(60)), encoding="utf-8")
    sources = Sources(train=str(plain), calibration=asked, search=asked, test=asked, held_out=(asked, str(plain)))
    sizes = Sizes(tokens=16, train=3, calibration=4, search=5, test=3, held_out=2)
    data = causal_data(Letters(), sources=sources, sizes=sizes, positions=6)
    assert data.positions is None
    whole = "".join(f"c.jsonl{i:03}?={i:03}$" for i in range(60))
    tokens, positions = data.roles.search.inputs
    for row, (window, own, targets) in enumerate(zip(tokens, positions, data.roles.search.targets, strict=True)):
        text = whole[(4 + row) * 17 : (5 + row) * 17]
        assert "".join(map(chr, window)) == text[:16]
        counted = targets != IGNORED
        after = [at for at in range(16) if _of_answer(whole, (4 + row) * 17 + at + 1)]
        assert own[counted].tolist() == after[:6]
        assert [chr(t) for t in targets[counted]] == [text[at + 1] for at in after[:6]]
        assert set(own.tolist()) == set(after[:6])  # spare places are filled with these
    assert data.roles.train.inputs[1].unique(dim=0).tolist() == [list(judged_positions(16, 6))]  # of a text as ever
    assert set(data.judged) == {asked}
    assert data.judged[asked].shape == data.held_out[asked].shape == (2, 17)


def _of_answer(whole: str, at: int) -> bool:
    begins = whole.rfind("c.jsonl", 0, at + 7)
    return at >= whole.index("=", begins)


def test_a_window_without_answers_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "p" * 40, "completion": "a" * 40}) + "\n", encoding="utf-8")
    sources = Sources(train=str(path), calibration=str(path), search=str(path), test=str(path), held_out=())
    sizes = Sizes(tokens=7, train=1, calibration=1, search=1, test=1, held_out=1)
    data = causal_data(Letters(), sources=sources, sizes=sizes, positions=4)
    assert data.roles.calibration.inputs.tolist() == [[ord("a")] * 7]


@pytest.mark.parametrize(
    ("judged", "positions"),
    [([True] * 5, [2, 3]), ([False, True, True, True, True], [0, 2]), ([True, False, False, False, True], [3, 3])],
)
def test_own_positions(judged: list[bool], positions: list[int]) -> None:
    assert own_positions(judged, (2, 3)) == positions


def answering_task() -> tuple[Task, Role]:
    """Three windows of which 1, 2 and 3 positions are judged."""
    tiny = causal_task("llama")
    windows = torch.randint(3, VOCABULARY, (3, 17), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[4, 4, 4], [2, 9, 2], [1, 8, 15]])
    targets = windows.gather(1, positions + 1)
    targets[0, 1:] = targets[1, 2] = IGNORED
    roles = {
        name: Role((windows[:, :-1], positions), targets, tuple(f"{name}{i}" for i in range(3)))
        for name in ("train", "calibration", "search", "test")
    }
    return (
        Task(
            tiny.model,
            (windows[:1, :-1], positions[:1]),
            Roles(**roles),
            metric=token_accuracy,
            loss=token_loss,
            forward=AnswerForward(),
            kind="language",
            block=1,
        ),
        roles["search"],
    )


def perturbed(model: nn.Module) -> nn.Module:
    other = causal_task("llama", seed=0).model
    with torch.no_grad():
        for number, parameter in enumerate(other.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return other.eval()


def test_score_and_loss_are_means_over_the_answers_tokens() -> None:
    task, role = answering_task()
    network = perturbed(task.model)
    tokens, positions = role.inputs
    kl, nats, right, count = 0.0, 0.0, 0, 0
    with torch.no_grad():
        for row, (window, own, targets) in enumerate(zip(tokens, positions, role.targets, strict=True)):
            dense, pruned = (m(input_ids=window[None]).logits[0] for m in (task.model, network))
            for position, target in list(zip(own.tolist(), targets.tolist(), strict=True))[: row + 1]:
                p, q = dense[position].double().log_softmax(0), pruned[position].double().log_softmax(0)
                kl += float((p.exp() * (p - q)).sum())
                nats -= float(q[target])
                right += int(q.argmax()) == target
                count += 1
    assert count == 6
    for batch_size in (1, 2, 3):
        judge = Judge(task, role, batch_size=batch_size)
        assert not judge.whole_metric
        metrics = judge(network)
        assert metrics.kl == pytest.approx(kl / 6, rel=1e-4)
        assert metrics.loss == pytest.approx(nats / 6, rel=1e-4)
        assert metrics.accuracy == pytest.approx(right / 6)
        parts = judge.judge(network, 0, len(judge.batches))
        values = np.concatenate([part.values for part in parts], axis=1)
        assert values[2].mean() == pytest.approx(kl / 6, rel=1e-4)
        assert values[1].mean() == pytest.approx(nats / 6, rel=1e-4)
        dense = judge(task.model)
        assert dense.kl == pytest.approx(0, abs=1e-6)
        assert dense.agreement == pytest.approx(1)
    whole = Judge(replace(task, data=task.data), role.with_targets(role.targets.clamp(min=0)))(network)
    assert whole.kl != pytest.approx(kl / 6, rel=1e-2)  # where nothing is left out, the spare places count


def test_perplexity_is_of_the_answers_tokens() -> None:
    task, role = answering_task()
    windows = torch.cat([role.inputs[0], role.inputs[0][:, :1]], dim=1)
    judged = torch.zeros(3, 17, dtype=torch.bool)
    judged[0, 5] = judged[2, 16] = judged[1, 0] = True  # nothing comes before the last of these
    with torch.no_grad():
        log = task.model(input_ids=windows[:, :-1]).logits.double().log_softmax(-1)
    nats = -(log[0, 4, windows[0, 5]] + log[2, 15, windows[2, 16]]) / 2
    assert perplexity(task.model, windows, judged=judged) == pytest.approx(float(nats.exp()), rel=1e-5)
    every = F.nll_loss(log.flatten(0, 1), windows[:, 1:].flatten()).exp()
    assert perplexity(task.model, windows) == pytest.approx(float(every), rel=1e-5)


def test_a_model_is_judged_on_a_file_of_messages(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", "llama")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    path = tmp_path / "chat.jsonl"
    turns = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "é" * 5}]}
        for i in range(60)
    ]
    path.write_text("\n".join(map(json.dumps, turns)), encoding="utf-8")
    texts = {role: str(path) for role in ("train", "calibration", "search", "test")} | {"held_out": [str(path)]}
    sizes = {"tokens": 24, "train": 8, "calibration": 4, "search": 6, "test": 4, "held_out": 2}
    task = hf_causal_lm(model=str(folder), sources=texts, sizes=sizes, positions=6)
    outputs = task.forward(task.model, task.data.test.inputs)
    assert outputs.shape[:2] == (4, 6)
    tokens, positions = task.data.test.inputs
    with torch.no_grad():
        every = task.model(input_ids=tokens).logits
    assert torch.allclose(outputs, every.gather(1, positions[:, :, None].expand(-1, -1, every.shape[-1])), atol=1e-5)
    assert not task.model.get_submodule("lm_head")._forward_pre_hooks
    assert task.measure is not None
    assert task.measure(task.model)[f"perplexity_{path}"] > 1  # type: ignore[operator]
