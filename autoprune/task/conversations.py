"""Questions with answers: files of messages, prompts with completions, instructions; only answers are judged."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SUFFIXES = (".jsonl", ".json")
ANSWERS = "assistant"  # the role whose messages are judged
NAMES = {"human": "user", "gpt": ANSWERS, "system": "system"}  # of ShareGPT's files
FORMS = (
    '{"messages": [{"role": …, "content": …}, …]}, {"prompt": …, "completion": …}, {"instruction": …, "output": …} or '
    '{"text": …}'
)


class ChatTokenizer(Protocol):
    """What is used of a Hugging Face tokenizer that may have a chat template."""

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Completion:
    """A text of which only the end is judged."""

    prompt: str
    """What is read first."""
    completion: str
    """What is judged."""

    def __str__(self) -> str:
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, of which the assistant's are judged."""

    messages: tuple[tuple[str, str], ...]
    """(role, content), in their order."""
    plain: Completion | None = None
    """What is read instead where a tokenizer has no chat template; None where one is needed."""

    def __str__(self) -> str:
        return "\n\n".join(content for _, content in self.messages)


Document = str | Completion | Conversation


def written_documents(path: Path) -> Iterator[Document]:
    """The documents of a file with a JSON object in every line (.jsonl), or with a list of such (.json).

    Args:
        path: The file, in UTF-8.

    Raises:
        ValueError: A line is something else; the sentence says which.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if path.suffix == ".json" else None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON in UTF-8: {error}") from error
    if rows is not None and not isinstance(rows, list):
        raise ValueError(f"{path} holds no list; a .json file is a list of objects, each {FORMS}")
    if rows is not None:
        yield from (document_of(row, f"{path}, entry {number}") for number, row in enumerate(rows, start=1))
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where} is no JSON: {error}; every line is an object, {FORMS}") from error
            yield document_of(row, where)


def is_written(row: object) -> bool:
    """Whether a row of a data set has the columns of one of these forms, but for `text`."""
    columns = set(row) if isinstance(row, Mapping) else set()
    forms = ({"messages"}, {"conversations"}, {"prompt", "completion"}, {"instruction", "output"})
    return any(needed <= columns for needed in forms)


def document_of(row: Any, where: str) -> Document:
    """What an object with messages, a prompt and a completion, an instruction and an output, or a text is.

    Args:
        row: Read from JSON, or of a data set.
        where: Which one it is, for the sentence.

    Raises:
        ValueError: It is none of these.
    """
    match row:
        case {"messages": list(turns)} | {"conversations": list(turns)}:
            return Conversation(_messages(turns, where))
        case {"prompt": str(prompt), "completion": str(completion)}:
            return Completion(prompt, completion)
        case {"prompt": list(prompt), "completion": list(completion)}:
            return Conversation(_messages([*prompt, *completion], where))
        case {"instruction": str(asked), "output": str(answer)}:
            more = row.get("input") or ""
            question = f"{asked}\n\n{more}" if more else asked
            return Conversation((("user", question), (ANSWERS, answer)), Completion(f"{question}\n\n", answer))
        case {"text": str(text)}:
            return text
    given = sorted(row) if isinstance(row, Mapping) else type(row).__name__
    raise ValueError(f"{where} is {given}; every one is {FORMS}")


def tokens_of(document: Document, tokenizer: ChatTokenizer, *, between: str) -> tuple[list[int], list[bool]]:
    """The document's tokens, and which of them are judged: all of a text, the answers of the others.

    Of messages, an answer is what the tokenizer's chat template writes from the end of the prompt on, the mark that
    ends the turn included. An answer that the template writes otherwise once more follows (a model's thoughts, which
    some leave out) is read and not judged. A completion ends with the tokenizer's end of text, where it has one.

    Args:
        document: What is read.
        tokenizer: Turns text into tokens.
        between: Stands behind a text.

    Raises:
        ValueError: Messages without a chat template.
    """
    if isinstance(document, Conversation):
        if getattr(tokenizer, "chat_template", None):
            return _of_turns(document, tokenizer)
        if document.plain is None:
            raise ValueError(
                'messages are written by the tokenizer\'s chat template, and this one has none; give {"prompt": …, '
                '"completion": …} lines, or a model with a template'
            )
        document = document.plain
    if isinstance(document, Completion):
        end = getattr(tokenizer, "eos_token", None) or between
        return _marked(str(document) + end, [(len(document.prompt), len(str(document)) + len(end))], tokenizer)
    tokens = _tokens(document + between, tokenizer)
    return tokens, [True] * len(tokens)


def _of_turns(document: Conversation, tokenizer: Any) -> tuple[list[int], list[bool]]:
    messages = [{"role": role, "content": content} for role, content in document.messages]
    whole = _written(tokenizer, messages)
    spans = []
    for at, message in enumerate(messages):
        if message["role"] == ANSWERS:
            before = _written(tokenizer, messages[:at], add_generation_prompt=True) if at else ""
            behind = _written(tokenizer, messages[: at + 1])
            if behind.startswith(before) and whole.startswith(behind):
                spans.append((len(before), len(behind)))
    return _marked(whole, spans, tokenizer)


def _written(tokenizer: Any, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))


def _marked(text: str, spans: Sequence[tuple[int, int]], tokenizer: ChatTokenizer) -> tuple[list[int], list[bool]]:
    """The text's tokens, and which lie in the spans of characters.

    One that begins before a span and ends in it is in it: it is not written without the span's first character.
    """
    tokens = _tokens(text, tokenizer)
    judged = [False] * len(tokens)
    for start, stop in spans:
        first, last = (_alike(tokens, _tokens(text[:end], tokenizer)) for end in (start, stop))
        judged[first:last] = [True] * (last - first)
    return tokens, judged


def _alike(tokens: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens at the beginning are the same."""
    return next(
        (at for at, (a, b) in enumerate(zip(tokens, others, strict=False)) if a != b), min(len(tokens), len(others))
    )


def _tokens(text: str, tokenizer: ChatTokenizer) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _messages(given: Sequence[Any], where: str) -> tuple[tuple[str, str], ...]:
    messages = []
    for message in given:
        match message:
            case {"role": str(role), "content": str(content)}:
                messages.append((role, content))
            case {"from": str(name), "value": str(content)}:
                messages.append((NAMES.get(name, name), content))
            case _:
                raise ValueError(
                    f'{where} has a message that is no {{"role": …, "content": …}} of texts: {message!r:.80}'
                )
    if not any(role == ANSWERS for role, _ in messages):
        raise ValueError(f"{where} has no message of the role {ANSWERS!r}, which are those that are judged")
    return tuple(messages)
