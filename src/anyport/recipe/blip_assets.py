"""What surrounds a BLIP checkpoint: its tokenizer, and how its pictures and texts are prepared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyport.errors import SourceError, require
from anyport.recipe.part import assumption

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKENIZER: Final = "assets/tokenizer.json"  # where it lies in a bundle
_FIRST_TOKEN: Final = "[CLS]"  # noqa: S105  (a token of a vocabulary)
_PROCESSORS: Final = ("preprocessor_config.json", "processor_config.json")
_AGAIN: Final = "download the checkpoint again; all files must come from one version of it"
# what the processor does where its file is silent (transformers 5.23, image_processing_pil_blip.py), and what
# the files of Salesforce/blip-* say
_DEFAULTS: Final[Mapping[str, Any]] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
    "resample": 3,
    "rescale_factor": 1 / 255,
}
_RESAMPLE: Final = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True, slots=True)
class TextRules:
    """How texts become tokens.

    Attributes:
        multimodal_start: First token of a text that is read together with a picture; ``None`` is as alone.
        feature_start: The same, where it is read for its features; ``None`` is as ``multimodal_start``.
        prompt: Words that every caption begins with.
    """

    multimodal_start: int | None = None
    feature_start: int | None = None
    prompt: str = ""


def find_file(checkpoint: str | Path, *names: str) -> Path | None:
    """Return the first of these files that a checkpoint folder or a Hugging Face id has."""
    if Path(checkpoint).is_dir():
        return next((path for name in names if (path := Path(checkpoint) / name).is_file()), None)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(str(checkpoint), name))
        except EntryNotFoundError:
            continue
    return None


def read_tokenizer(checkpoint: str | Path) -> bytes:
    """Return the content of ``tokenizer.json``, made of ``vocab.txt`` if only that is there.

    Raises:
        SourceError: Neither is there, or it cannot be read.
    """
    found = find_file(checkpoint, "tokenizer.json", "vocab.txt")
    if found is None:
        raise SourceError(
            f"'{Path(checkpoint).name}' has neither tokenizer.json nor vocab.txt",
            do="put the tokenizer of the checkpoint there; BLIP uses that of bert-base-uncased",
        )
    if found.name == "tokenizer.json":
        content = found.read_bytes()
        open_tokenizer(content)
        return content
    return _tokenizer_of_words(found, is_lower=_is_lower(checkpoint))


def open_tokenizer(content: bytes) -> Any:
    """Read a ``tokenizer.json`` as a ``tokenizers.Tokenizer``.

    Raises:
        SourceError: It is none, or has no ``[CLS]``.
    """
    tokenizers = require("tokenizers", extra="text", step="a BLIP checkpoint")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as err:  # the package raises plain Exceptions
        raise SourceError(f"tokenizer.json cannot be read: {err}") from err
    if tokenizer.token_to_id(_FIRST_TOKEN) is None:
        raise SourceError(f"the tokenizer has no token {_FIRST_TOKEN}, which every text begins with")
    return tokenizer


def _is_lower(checkpoint: str | Path) -> bool:
    return bool(_read_object(find_file(checkpoint, "tokenizer_config.json")).get("do_lower_case", True))


def _read_object(path: Path | None) -> Mapping[str, Any]:
    """Return what a JSON file says; nothing if there is none."""
    if path is None:
        return {}
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:  # UnicodeDecodeError is one, too
        raise SourceError(f"{path.name} is no JSON: {err}", do=_AGAIN) from err
    if not isinstance(words, dict):
        raise SourceError(f"{path.name} holds a {type(words).__name__}, not an object", do=_AGAIN)
    return words


def _tokenizer_of_words(path: Path, *, is_lower: bool) -> bytes:
    """Make a tokenizer as BERT's: one token a line, its id is the number of the line."""
    tokenizers = require("tokenizers", extra="text", step="a BLIP checkpoint")
    # not splitlines: a token may be a line separator of Unicode
    try:
        words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as err:
        raise SourceError(
            f"{path.name} is no UTF-8 text: {err.reason} at byte {err.start}", do=_AGAIN
        ) from err
    vocabulary = {word: number for number, word in enumerate(words)}
    if len(vocabulary) != len(words) or "[UNK]" not in vocabulary or _FIRST_TOKEN not in vocabulary:
        raise SourceError(
            f"vocab.txt is no vocabulary of BERT: {len(words)} lines, {len(vocabulary)} different ones, "
            f"'[UNK]' and '{_FIRST_TOKEN}' must be among them"
        )
    made = tokenizers.BertWordPieceTokenizer(vocab=vocabulary, lowercase=is_lower)
    return str(made.to_str()).encode()


def text_settings(tokenizer: bytes, text_config: Any, rules: TextRules) -> dict[str, Any]:
    """Return the ``text`` settings of the tasks.

    Raises:
        SourceError: The tokenizer is that of another network, as far as their sizes and marks tell.
    """
    words = open_tokenizer(tokenizer)
    _check_vocabulary(words, text_config)
    start = words.token_to_id(_FIRST_TOKEN)
    return {
        "tokenizer": TOKENIZER,
        "start": start,
        "multimodal_start": start if rules.multimodal_start is None else rules.multimodal_start,
        "bos": text_config.bos_token_id,
        "sep": text_config.sep_token_id,
        "pad": text_config.pad_token_id,
        "max_length": text_config.max_position_embeddings,
    }


def _check_vocabulary(words: Any, text_config: Any) -> None:
    n_words, n_known = words.get_vocab_size(), text_config.vocab_size
    do = "give the tokenizer that belongs to this checkpoint"
    if n_words > n_known:
        raise SourceError(f"the tokenizer has {n_words} tokens, the network knows {n_known}", do=do)
    for mark, token in (("[SEP]", text_config.sep_token_id), ("[PAD]", text_config.pad_token_id)):
        found = words.token_to_id(mark)
        if found not in {None, token}:
            raise SourceError(f"{mark} is token {found} of the tokenizer, and {token} of the network", do=do)


def assumed_pictures(checkpoint: str | Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a warning where no file says how pictures are prepared; nothing where one does.

    Args:
        checkpoint: As for `picture_settings`. The original ``.pth`` files never have such a file: their own
            code says the same.
        settings: What `picture_settings` made of it.
    """
    if find_file(checkpoint, *_PROCESSORS) is not None:
        return ()
    return (assumption(settings, "Salesforce/blip-*"),)


def picture_settings(checkpoint: str | Path, size: int) -> dict[str, Any]:
    """Return the ``picture`` settings of the tasks.

    Args:
        checkpoint: Its ``preprocessor_config.json`` (or ``processor_config.json``) is read; without one it
            is as in the published checkpoints.
        size: Height and width of the network's pictures.

    Raises:
        SourceError: The file speaks of another size, or of steps that BLIP's processor has not.
    """
    found = find_file(checkpoint, *_PROCESSORS)
    written = _read_object(found)
    known = {**_DEFAULTS, **written.get("image_processor", written)}
    name = found.name if found else "preprocessor_config.json"
    _check_processor(known, name, size)
    settings = {
        "mode": "RGB",
        "size": [size, size],
        "resample": _RESAMPLE[int(known["resample"])],
        "scale": float(known["rescale_factor"]) if known["do_rescale"] else 1.0,
    }
    if known["do_normalize"]:
        settings["mean"] = [float(value) for value in known["image_mean"]]
        settings["std"] = [float(value) for value in known["image_std"]]
    return settings


def _check_processor(known: Mapping[str, Any], name: str, size: int) -> None:
    wanted = {"height": size, "width": size}
    if known.get("size", wanted) != wanted:
        raise SourceError(
            f"{name} has size = {known['size']}, the network takes pictures of {size} x {size}",
            do="correct the file, or vision_config.image_size in config.json",
        )
    if not known["do_resize"] or not known["do_convert_rgb"] or known.get("do_center_crop"):
        raise SourceError(
            f"{name} has do_resize = false, do_convert_rgb = false or do_center_crop = true, "
            "which BLIP's processor has not"
        )
    if int(known["resample"]) not in _RESAMPLE:
        raise SourceError(f"{name} has resample = {known['resample']}, expected 0 to 5")
