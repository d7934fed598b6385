"""The options of each training method, with defaults, help and bounds. Standard library only (see rlhf/jobspec.py)."""

from rlhf.options.building import build_options, host_list, world_size
from rlhf.options.methods import (
    CHANGEABLE_ON_RESUME,
    OPTIONS,
    DPOOptions,
    GivenRowsOptions,
    GRPOOptions,
    KTOOptions,
    MergeOptions,
    OnPolicyOptions,
    PolicyGradientOptions,
    PPOOptions,
    RewardOptions,
    RLOOOptions,
    SFTOptions,
    SpecError,
    TokenKLGRPOOptions,
    TrainingOptions,
)

__all__ = [
    "CHANGEABLE_ON_RESUME",
    "OPTIONS",
    "DPOOptions",
    "GRPOOptions",
    "GivenRowsOptions",
    "KTOOptions",
    "MergeOptions",
    "OnPolicyOptions",
    "PPOOptions",
    "PolicyGradientOptions",
    "RLOOOptions",
    "RewardOptions",
    "SFTOptions",
    "SpecError",
    "TokenKLGRPOOptions",
    "TrainingOptions",
    "build_options",
    "host_list",
    "world_size",
]
