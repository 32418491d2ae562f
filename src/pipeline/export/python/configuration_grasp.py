"""Configurations of models with matrices factored by GRASP (arXiv 2501.00339). Written by graspd."""

from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config


def _factored_plan(plan):
    """The tensor-parallel plan of a stock model, with the two factors of every projection in it.

    The factor at the sharded side of a projection is sharded, what is between the factors is whole on every device.
    The factors come first, because some engines take the first entry that fits the beginning of a name.
    """
    sides = {"colwise": ("colwise_rep", "colwise"), "rowwise": ("rowwise", "colwise_rep")}
    factors = {}
    for name, style in plan.items():
        if style in sides:
            factors[f"{name}.InLinear"], factors[f"{name}.OutLinear"] = sides[style]
    return {**factors, **plan}


class GraspLlamaConfig(LlamaConfig):
    model_type = "grasp_llama"
    base_model_tp_plan = _factored_plan(LlamaConfig.base_model_tp_plan)
    # {module: rank}, such as {"model.layers.3.mlp.up_proj": 64}; what is not named is an ordinary matrix.
    truncation_ranks: dict = None


class GraspMistralConfig(MistralConfig):
    model_type = "grasp_mistral"
    base_model_tp_plan = _factored_plan(MistralConfig.base_model_tp_plan)
    truncation_ranks: dict = None


class GraspQwen2Config(Qwen2Config):
    model_type = "grasp_qwen2"
    base_model_tp_plan = _factored_plan(Qwen2Config.base_model_tp_plan)
    truncation_ranks: dict = None


class GraspQwen3Config(Qwen3Config):
    model_type = "grasp_qwen3"
    base_model_tp_plan = _factored_plan(Qwen3Config.base_model_tp_plan)
    truncation_ranks: dict = None
