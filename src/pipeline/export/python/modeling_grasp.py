"""Llama, Mistral, Qwen2 and Qwen3 with matrices factored by GRASP (arXiv 2501.00339). Written by graspd.

Where `config.truncation_ranks` names a projection, two small matrices stand in its place: InLinear [rank, in] and then
OutLinear [out, rank], which has the projection's bias. All else is the stock model of transformers, caches and attention
kernels included. Compressed blocks are of classes of their own, because engines recognise stock blocks by their class
and would fuse projections that are no matrices any more.
"""

from torch import nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaMLP,
    LlamaModel,
)
from transformers.models.mistral.modeling_mistral import (
    MistralAttention,
    MistralDecoderLayer,
    MistralForCausalLM,
    MistralMLP,
    MistralModel,
)
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2DecoderLayer,
    Qwen2ForCausalLM,
    Qwen2MLP,
    Qwen2Model,
)
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3DecoderLayer,
    Qwen3ForCausalLM,
    Qwen3MLP,
    Qwen3Model,
)

from .configuration_grasp import GraspLlamaConfig, GraspMistralConfig, GraspQwen2Config, GraspQwen3Config


class FactoredLinear(nn.Module):
    """y = OutLinear(InLinear(x)): a linear layer of at most `rank` dimensions in between."""

    # transformers 4 hooks a module for tensor parallelism unless it is marked; here the two factors are to be hooked.
    _is_hooked = True

    def __init__(self, in_features, out_features, rank, bias):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.InLinear = nn.Linear(in_features, rank, bias=False)
        self.OutLinear = nn.Linear(rank, out_features, bias=bias)

    def forward(self, x):
        return self.OutLinear(self.InLinear(x))


def _ranks(config, layer_idx, block):
    """Ranks of the factored projections of a block, by the projection's name."""
    begin = f"model.layers.{layer_idx}.{block}."
    ranks = config.truncation_ranks or {}
    return {name[len(begin) :]: rank for name, rank in ranks.items() if name.startswith(begin)}


def _factor(block, ranks):
    """Puts factors in the place of a block's dense projections."""
    for name, rank in ranks.items():
        dense = getattr(block, name)
        setattr(block, name, FactoredLinear(dense.in_features, dense.out_features, rank, dense.bias is not None))


class _FactoredAttention:
    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        _factor(self, _ranks(config, layer_idx, "self_attn"))


class _FactoredMLP:
    def __init__(self, config, layer_idx):
        super().__init__(config)
        _factor(self, _ranks(config, layer_idx, "mlp"))


class _FactoredDecoderLayer:
    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        if _ranks(config, layer_idx, "self_attn"):
            self.self_attn = self.attention_class(config, layer_idx)
        if _ranks(config, layer_idx, "mlp"):
            self.mlp = self.mlp_class(config, layer_idx)


class _FactoredModel:
    def post_init(self):
        # The stock constructor calls this last: the layers are there, and nothing is initialised or loaded yet.
        for layer_idx in range(len(self.layers)):
            if _ranks(self.config, layer_idx, "self_attn") or _ranks(self.config, layer_idx, "mlp"):
                self.layers[layer_idx] = self.layer_class(self.config, layer_idx)
        super().post_init()


class _FactoredForCausalLM:
    def __init__(self, config):
        # Not the stock constructor, which would build the stock model only to throw it away.
        PreTrainedModel.__init__(self, config)
        self.model = self.model_class(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class GraspLlamaAttention(_FactoredAttention, LlamaAttention):
    pass


class GraspLlamaMLP(_FactoredMLP, LlamaMLP):
    pass


class GraspLlamaDecoderLayer(_FactoredDecoderLayer, LlamaDecoderLayer):
    attention_class = GraspLlamaAttention
    mlp_class = GraspLlamaMLP


class GraspLlamaModel(_FactoredModel, LlamaModel):
    config_class = GraspLlamaConfig
    layer_class = GraspLlamaDecoderLayer
    _no_split_modules = ["LlamaDecoderLayer", "GraspLlamaDecoderLayer"]


class GraspLlamaForCausalLM(_FactoredForCausalLM, LlamaForCausalLM):
    config_class = GraspLlamaConfig
    model_class = GraspLlamaModel
    _no_split_modules = ["LlamaDecoderLayer", "GraspLlamaDecoderLayer"]


class GraspMistralAttention(_FactoredAttention, MistralAttention):
    pass


class GraspMistralMLP(_FactoredMLP, MistralMLP):
    pass


class GraspMistralDecoderLayer(_FactoredDecoderLayer, MistralDecoderLayer):
    attention_class = GraspMistralAttention
    mlp_class = GraspMistralMLP


class GraspMistralModel(_FactoredModel, MistralModel):
    config_class = GraspMistralConfig
    layer_class = GraspMistralDecoderLayer
    _no_split_modules = ["MistralDecoderLayer", "GraspMistralDecoderLayer"]


class GraspMistralForCausalLM(_FactoredForCausalLM, MistralForCausalLM):
    config_class = GraspMistralConfig
    model_class = GraspMistralModel
    _no_split_modules = ["MistralDecoderLayer", "GraspMistralDecoderLayer"]


class GraspQwen2Attention(_FactoredAttention, Qwen2Attention):
    pass


class GraspQwen2MLP(_FactoredMLP, Qwen2MLP):
    pass


class GraspQwen2DecoderLayer(_FactoredDecoderLayer, Qwen2DecoderLayer):
    attention_class = GraspQwen2Attention
    mlp_class = GraspQwen2MLP


class GraspQwen2Model(_FactoredModel, Qwen2Model):
    config_class = GraspQwen2Config
    layer_class = GraspQwen2DecoderLayer
    _no_split_modules = ["Qwen2DecoderLayer", "GraspQwen2DecoderLayer"]


class GraspQwen2ForCausalLM(_FactoredForCausalLM, Qwen2ForCausalLM):
    config_class = GraspQwen2Config
    model_class = GraspQwen2Model
    _no_split_modules = ["Qwen2DecoderLayer", "GraspQwen2DecoderLayer"]


class GraspQwen3Attention(_FactoredAttention, Qwen3Attention):
    pass


class GraspQwen3MLP(_FactoredMLP, Qwen3MLP):
    pass


class GraspQwen3DecoderLayer(_FactoredDecoderLayer, Qwen3DecoderLayer):
    attention_class = GraspQwen3Attention
    mlp_class = GraspQwen3MLP


class GraspQwen3Model(_FactoredModel, Qwen3Model):
    config_class = GraspQwen3Config
    layer_class = GraspQwen3DecoderLayer
    _no_split_modules = ["Qwen3DecoderLayer", "GraspQwen3DecoderLayer"]


class GraspQwen3ForCausalLM(_FactoredForCausalLM, Qwen3ForCausalLM):
    config_class = GraspQwen3Config
    model_class = GraspQwen3Model
    _no_split_modules = ["Qwen3DecoderLayer", "GraspQwen3DecoderLayer"]
