"""How language models are called, and how good their answers are. All of it can be sent to another process."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.default_metrics import IGNORED

TEMPERATURE = 0.05  # of cosines in [-1, 1], as sentence encoders are trained with


@dataclass(frozen=True, slots=True)
class CausalForward:
    """Token windows [N, T] → logits [N, P, V] of the next token at P fixed positions of each window, without a cache.

    >>> CausalForward((63, 127))(model, windows).shape
    torch.Size([8, 2, 49152])
    """

    positions: tuple[int, ...]
    """Within a window, ascending."""

    def __call__(self, network: nn.Module, inputs: Tensor) -> Tensor:
        positions = torch.tensor(self.positions, device=inputs.device)
        # a trace for export can't contain transformers' look for packed windows, which all-ones masks make needless
        mask = torch.ones_like(inputs) if torch.jit.is_tracing() else None  # type: ignore[attr-defined, no-untyped-call]
        answer = network(input_ids=inputs, attention_mask=mask, use_cache=False, logits_to_keep=positions)
        logits: Tensor = answer.logits
        return logits


@dataclass(frozen=True, slots=True)
class AnswerForward:
    """(Token windows [N, T], positions [N, P]) → logits [N, P, V] of the next token at each window's own positions.

    Only the hidden states of these reach the output layer, whose work is large.

    >>> AnswerForward()(model, (windows, positions)).shape
    torch.Size([8, 32, 49152])
    """

    def __call__(self, network: nn.Module, inputs: tuple[Tensor, Tensor]) -> Tensor:
        tokens, positions = inputs

        def chosen(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            (hidden,) = arguments
            return (hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.shape[-1])),)

        head: nn.Module = network.get_output_embeddings()  # type: ignore[operator]
        with head.register_forward_pre_hook(chosen):
            logits: Tensor = network(input_ids=tokens, use_cache=False).logits
        return logits


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EncoderForward:
    """Padded token windows [N, T] → logits [N, passages]: cosines with the passages' fixed embeddings ÷ temperature."""

    bank: Tensor
    """The dense network's embeddings of the passages, unit vectors [passages, hidden]."""
    pad: int
    """The token that fills windows up."""
    temperature: float = TEMPERATURE
    """Above 0."""

    def __call__(self, network: nn.Module, inputs: Tensor) -> Tensor:
        embedded = embeddings(network, inputs, pad=self.pad)
        return embedded @ self.bank.to(embedded.device).T / self.temperature

    def __repr__(self) -> str:  # by content: it stands in the identity of a task
        digest = hashlib.sha256(self.bank.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
        return f"EncoderForward(bank={tuple(self.bank.shape)} {digest}, pad={self.pad}, temperature={self.temperature})"


def embeddings(network: nn.Module, inputs: Tensor, *, pad: int) -> Tensor:
    """Unit vectors [N, hidden]: the mean of an encoder's last hidden states over tokens [N, T] that aren't `pad`.

    Args:
        network: The network.
        inputs: What is read.
        pad: The token that stands for nothing.
    """
    mask = inputs != pad
    hidden: Tensor = network(input_ids=inputs, attention_mask=mask.long()).last_hidden_state.float()
    weights = mask.float().unsqueeze(-1)
    return F.normalize((hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1), dim=-1)


def token_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """In [0, 1]: how often the likeliest of logits [N, P, V] is the next token [N, P]; −100 does not count.

    Args:
        outputs: What the network returned.
        targets: What outputs are compared with.
    """
    counted = targets != IGNORED
    return (((outputs.argmax(dim=-1) == targets) & counted).sum() / counted.sum().clamp(min=1)).item()


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean negative log-likelihood, in nats, of next tokens [N, P] under logits [N, P, V]: log perplexity.

    Targets of −100 do not count.

    Args:
        outputs: What the network returned.
        targets: What outputs are compared with.
    """
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())
