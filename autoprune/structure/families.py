"""Where each type of transformer keeps its parts, by the names of its modules."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from autoprune.structure.groups import Returns


@dataclass(frozen=True, slots=True)
class Experts:
    """Where a block keeps the experts of its FFN, which are tensors of all of them; names are within a block."""

    count_entry: str
    """The configuration's entry for how many there are."""
    width_entry: str
    """Its entry for how many neurons each has."""
    module: str = "mlp.experts"
    """What holds the experts."""
    router: str = "mlp.gate"
    """The module whose `weight` [experts, hidden] scores every expert, and that hands each token to `top_k` of them."""
    inputs: str = "gate_up_proj"
    """A parameter of the experts, [experts, 2 · neurons, hidden]: gates, then what they are multiplied with."""
    output: str = "down_proj"
    """[experts, hidden, neurons]"""


@dataclass(frozen=True, slots=True)
class Family:
    """Where the parts of a model type are; names are within a block."""

    blocks: str
    """How the name of the list of blocks ends."""
    attention: str
    """The module whose attribute `head_dim` names."""
    head_dim: str
    """The attribute that says how wide a head is."""
    projections: tuple[str, ...]
    """Query, key and value, or one that holds all three."""
    attention_output: str
    """The attention's last linear layer."""
    ffn: str
    """The module of the FFN."""
    ffn_inputs: tuple[str, ...]
    """The linear layers that write its neurons."""
    ffn_output: str
    """The linear layer that reads them."""
    skip_attention: tuple[tuple[str, Returns], ...]
    """What stands in for the modules of an attention that is passed over, norms included."""
    skip_ffn: tuple[tuple[str, Returns], ...]
    """The same of an FFN."""
    ratio: str | None = None
    """The attention's attribute that says how many query heads share a key head; None: it has none."""
    sizes: tuple[tuple[str, str], ...] = ()
    """Its other attributes that follow the number of heads: "head" counts heads, "width" their features."""
    ffn_size: str = "intermediate_size"
    """The configuration's entry for the FFN's width."""
    free_heads: bool = False
    """Whether the configuration says how wide a head is, so that fewer heads can be written down; otherwise that
    follows from the hidden size."""
    experts: Experts | None = None
    """Where the FFN is split into experts, in those blocks that have some."""

    @property
    def block_layout(self) -> bool:
        """Whether engines that give every block its own sizes have names for all that may be narrower."""
        return self.free_heads and self.experts is None

    @property
    def pre_norm(self) -> bool:
        """Whether a sublayer adds to the stream behind it, so that one that returns zeros is one that is not there."""
        return self.skip_ffn[-1][1] == "zeros" or len(self.skip_ffn) == 3


LLAMA = Family(
    blocks="layers",
    attention="self_attn",
    head_dim="head_dim",
    projections=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_output="self_attn.o_proj",
    ffn="mlp",
    ffn_inputs=("mlp.gate_proj", "mlp.up_proj"),
    ffn_output="mlp.down_proj",
    skip_attention=(("input_layernorm", "input"), ("self_attn", "zeros, None")),
    skip_ffn=(("post_attention_layernorm", "input"), ("mlp", "zeros")),
    ratio="num_key_value_groups",
    free_heads=True,
)
GEMMA2 = replace(  # norms before and behind each sublayer
    LLAMA,
    skip_attention=(("input_layernorm", "input"), ("self_attn", "zeros, None"), ("post_attention_layernorm", "input")),
    skip_ffn=(("pre_feedforward_layernorm", "input"), ("mlp", "zeros"), ("post_feedforward_layernorm", "input")),
)
MIXTRAL = replace(LLAMA, experts=Experts("num_local_experts", "intermediate_size"))
QWEN3_MOE = replace(LLAMA, experts=Experts("num_experts", "moe_intermediate_size"))
STARCODER2 = replace(LLAMA, ffn_inputs=("mlp.c_fc",), ffn_output="mlp.c_proj")
GPT2 = Family(
    blocks="h",
    attention="attn",
    head_dim="head_dim",
    projections=("attn.c_attn",),
    attention_output="attn.c_proj",
    ffn="mlp",
    ffn_inputs=("mlp.c_fc",),
    ffn_output="mlp.c_proj",
    skip_attention=(("ln_1", "input"), ("attn", "zeros, None")),
    skip_ffn=(("ln_2", "input"), ("mlp", "zeros")),
    sizes=(("num_heads", "head"), ("split_size", "width")),
    ffn_size="n_inner",
)
BERT = Family(
    blocks="encoder.layer",
    attention="attention.self",
    head_dim="attention_head_size",
    projections=("attention.self.query", "attention.self.key", "attention.self.value"),
    attention_output="attention.output.dense",
    ffn="intermediate",
    ffn_inputs=("intermediate.dense",),
    ffn_output="output.dense",
    skip_attention=(("attention", "input, None"),),
    skip_ffn=(("intermediate", "input"), ("output", "second")),
    sizes=(("num_attention_heads", "head"), ("all_head_size", "width")),
)
DISTILBERT = Family(
    blocks="transformer.layer",
    attention="attention",
    head_dim="attention_head_size",
    projections=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    attention_output="attention.out_lin",
    ffn="ffn",
    ffn_inputs=("ffn.lin1",),
    ffn_output="ffn.lin2",
    skip_attention=(("attention", "zeros, None"), ("sa_layer_norm", "input")),
    skip_ffn=(("ffn", "zeros"), ("output_layer_norm", "input")),
    sizes=(("n_heads", "head"),),
    ffn_size="hidden_dim",
)
FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "granite"), LLAMA),
    **dict.fromkeys(("gemma2", "gemma3_text"), GEMMA2),
    "starcoder2": STARCODER2,
    "mixtral": MIXTRAL,
    "qwen3_moe": QWEN3_MOE,
    "gpt2": GPT2,
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), BERT),
    "distilbert": DISTILBERT,
}


SIZES = tuple(
    dict.fromkeys(
        name for family in FAMILIES.values() for name in (family.ratio, *(size for size, _ in family.sizes)) if name
    )
)  # attributes of attentions that follow the number of their heads


def model_type(model: nn.Module) -> str | None:
    """The type that a Hugging Face model says it is; None for any other network."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    return kind if isinstance(kind, str) else None


def blocks_name(model: nn.Module, family: Family) -> str:
    """Returns the name of the model's list of blocks.

    Args:
        model: A transformer of the family, or a model around one.
        family: Where the family's parts stand.

    Raises:
        ValueError: It has none.
    """
    name: str
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and (name == family.blocks or name.endswith(f".{family.blocks}")):
            return name
    raise ValueError(f"this {type(model).__name__} has no list of blocks named {family.blocks!r}")
