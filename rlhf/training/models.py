"""Reading the base model and writing the trained one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf.jobspec import MODEL_DIR, STEP_MODELS_DIR, publish_directory
from rlhf.model_directory import model_kind
from rlhf.options import SpecError
from rlhf.score_scales import Scale
from rlhf.training.job import Job

# Copied byte for byte, so that a model and its children tokenize and render alike.
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "merges.txt", "tokenizer.model",
)  # fmt: skip


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with end-of-text standing in where it has no padding token."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(directory: Path) -> PreTrainedModel:
    """A language model in float32. Raises SpecError where the directory holds another kind or broken weights."""
    if model_kind(directory) != "policy":
        raise SpecError(f"{directory} is a reward model; this method needs a language model as its base")
    return _with_sound_weights(AutoModelForCausalLM.from_pretrained(directory, **_LOADING), directory)


def _with_sound_weights(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """Raise SpecError for weights that are not numbers: the loss would be none either, and the rate get the blame."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise SpecError(
                f"{directory}: {name} holds values that are not numbers (NaN or infinity), so nothing can be learnt "
                "or scored with it: choose another checkpoint"
            )
    return model


RANKING_HEAD = "preference"


def new_reward_model(
    directory: Path, tokenizer: PreTrainedTokenizerBase, aspects: Sequence[str], scales: Mapping[str, Scale]
) -> PreTrainedModel:
    """A reward model to train, in float32: one score that ranks, and after it one for each aspect.

    Over a language model the score heads are new and random (seed them). `scales` is how the aspects' scores were
    normalised; the model keeps it, so that what its heads say can be turned back.
    """
    names = [RANKING_HEAD, *aspects]
    model = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=len(names), **_LOADING)
    _with_sound_weights(model, directory)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    model.config.score_scales = {aspect: dict(scales[aspect]) for aspect in aspects}
    return _with_exact_scores(model, tokenizer)


def load_reward_model(
    directory: Path, tokenizer: PreTrainedTokenizerBase, *, with_aspects: bool = False
) -> PreTrainedModel:
    """A reward model in float32 with the score that ranks as its only output, or with those of its aspects after it.

    The score is read at the last token that is not padding, on either side. Where padding and end-of-turn are one
    token, as in SmolLM2, that is the same token whether a conversation comes alone or in a batch.
    """
    model = AutoModelForSequenceClassification.from_pretrained(directory, **_LOADING)
    _with_sound_weights(model, directory)
    if not with_aspects and model.num_labels > 1:
        model.score.weight = torch.nn.Parameter(model.score.weight[:1].detach().clone())
        model.score.out_features = model.num_labels = model.config.num_labels = 1
    return _with_exact_scores(model, tokenizer)


def aspect_scales(model: PreTrainedModel) -> dict[str, Scale]:
    """The aspects that the heads after the first one score, in order, with the way back to people's own scale."""
    scales = getattr(model.config, "score_scales", {})
    labels: Any = model.config.id2label
    names = [labels[index] for index in sorted(labels)[1:]]
    return {name: scales[name] for name in names if name in scales}


def _with_exact_scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    model.config.pad_token_id = tokenizer.pad_token_id
    model.score.__class__ = _Float32Linear
    return model


class _Float32Linear(torch.nn.Linear):
    """A score head that autocast leaves alone: in bfloat16 two scores near 8 are equal where they differ by < 0.03."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return super().forward(hidden.float())


_LOADING: dict[str, Any] = {
    "dtype": torch.float32,
    "local_files_only": True,
    "trust_remote_code": False,
    "use_safetensors": True,
}


def lora_config(job: Job, task_type: str) -> LoraConfig | None:
    options = job.spec.options
    if not options.use_lora:
        return None
    return LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        target_modules="all-linear",
        modules_to_save=["score"] if task_type == "SEQ_CLS" else None,
        task_type=task_type,
    )


def save_model(job: Job, model: PreTrainedModel | PeftModel) -> None:
    """Write JOB_DIR/model, complete with tokenizer and manifest: one float32 model with any LoRA merged in."""
    if job.is_main:
        merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
        _write_model(job, merged, None, job.directory / MODEL_DIR)


def save_step_model(job: Job, model: PreTrainedModel | PeftModel, step: int) -> None:
    """Write JOB_DIR/step_models/step-N as `save_model` writes the last one, and leave the model as it is.

    One that stands there already stays: an earlier attempt wrote it, and it may be under evaluation.
    """
    final = job.directory / STEP_MODELS_DIR / f"step-{step}"
    if not job.is_main or final.exists():
        return
    if isinstance(model, PeftModel):
        _write_model(job, model.get_base_model(), merged_weights(model), final)
    else:
        _write_model(job, model, None, final)


@torch.no_grad()
def merged_weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """The weights that `merge_and_unload` would leave, by the names of the model without adapters.

    Merging in place and taking it back would round the weights that training goes on with.
    """
    weights: dict[str, torch.Tensor] = {}
    base = model.get_base_model()
    adapted = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    for name, tensor in base.state_dict(keep_vars=True).items():
        owner, _, rest = name.partition(".base_layer.")
        if rest and owner in adapted:
            layer: Any = adapted[owner]
            kept = tensor.detach()
            weights[f"{owner}.{rest}"] = kept + layer.get_delta_weight("default") if rest == "weight" else kept
        elif not any(name.startswith(f"{owner}.") for owner in adapted):
            weights[name] = tensor.detach()
    return weights


def _write_model(job: Job, model: Any, weights: dict[str, torch.Tensor] | None, final: Path) -> None:
    """`weights`: to be written in place of the model's own."""
    job.heartbeat()
    draft = job.directory / f".{MODEL_DIR}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    own_settings = model.generation_config if model.can_generate() else None
    try:
        if own_settings is not None:
            # Without do_sample a server answers greedily, whatever temperature and seed a request names.
            model.generation_config = _generation_config(job.base)
        model.save_pretrained(draft, state_dict=weights)
        for name in _TOKENIZER_FILES:
            if (job.base / name).exists():
                shutil.copyfile(job.base / name, draft / name)
        publish_directory(draft, final)
    finally:
        if own_settings is not None:
            model.generation_config = own_settings
        shutil.rmtree(draft, ignore_errors=True)
    job.heartbeat()


def _generation_config(base: Path) -> GenerationConfig:
    """The base's own sampling settings, with sampling on."""
    config = GenerationConfig.from_pretrained(base, local_files_only=True)
    config.do_sample = True
    return config
