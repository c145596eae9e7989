"""Finding a PyTorch model from the words a user gives, and taking it apart.

The user's own file is imported as Python imports any file: it runs with the user's rights.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from torch import nn

from anyport.errors import SourceError, UsageError, did_you_mean
from anyport.recipe import (
    RECIPES,
    AdaptableRecipe,
    Model,
    Part,
    StreamableRecipe,
    recipe_for,
    recipe_for_file,
)
from anyport.recipe.adapters import adapter_from, check_adapter
from anyport.source.lines import first_line, is_users, user_line_of
from anyport.source.weightfiles import planned_files, weight_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from anyport.recipe import Recipe
    from anyport.recipe.adapters import Adapter
    from anyport.tensors import Signature

_PIPELINE: Final = "model_index.json"  # of diffusers


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What the user says about a source.

    Attributes:
        text: ``file.py:function``, ``package.module:function``, or a checkpoint that a recipe knows.
        folder: What relative files are relative to.
        signature: Needed for a module that no recipe describes.
        arguments: Other arguments of ``forward``, fixed in the graph.
        cases: ``file.py:function`` that returns the user's own inputs.
        adapters: LoRA files that are merged into a checkpoint: ``FILE.safetensors``, or with ``:SCALE``.
        streamed: The weights of large parts stay where they are, and are read when they are needed.
    """

    text: str
    folder: Path
    signature: Signature | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cases: str | None = None
    adapters: tuple[str, ...] = ()
    streamed: bool = False


def find_model(request: SourceRequest) -> Model:
    """Load the model that a source names.

    Raises:
        SourceError: It is not there, does not load, or is no ``nn.Module``.
        UsageError: A module without a recipe has no declared inputs and outputs.
    """
    given = _given(request)
    if request.text.endswith(".py"):
        raise UsageError(
            f"'{request.text}' names a file, and no function", do=f"write {request.text}:FUNCTION"
        )
    if _is_function(request.text):
        if request.streamed:
            raise _never_streamed(_public_name(request.text))
        if request.adapters:
            raise UsageError("a LoRA is merged into checkpoints alone", do="merge it in your function")
        module = load_module(request.text, request.folder)
        if request.signature is None or not request.signature.inputs or not request.signature.outputs:
            raise UsageError(
                f"the inputs and outputs of '{request.text}' are not declared",
                do="--input 'x=float32[batch, 3, 224, 224]' --output 'y=float32[batch, 1000]' "
                "--dim batch=1..64, or [inputs], [outputs] and [dims] in anyport.toml",
            )
        name = request.text.split(":", 1)[0].removesuffix(".py").replace("/", ".").rsplit(".", 1)[-1]
        return Model(
            name=name,
            source=_public_name(request.text),
            parts=(Part("network", module, request.signature, request.arguments, given=given),),
        )
    recipe, checkpoint = _recipe_for(request, weight_files)
    model = _loaded(_loader(recipe, request), checkpoint, request.text)
    if given is None:
        return model
    if len(model.parts) == 1:
        return replace(model, parts=(replace(model.parts[0], given=given),))
    sort = partial(_of_part, given, [part.name for part in model.parts])
    return replace(model, parts=tuple(replace(part, given=partial(sort, part)) for part in model.parts))


def outline_model(request: SourceRequest) -> Model:
    """Find the model that a source names, and read no weight: its modules are on torch's meta device.

    A function is called as in a build, for only it knows what it makes: what it loads is loaded. Of a folder
    the configuration and the indexes are enough.

    Raises:
        SourceError: It is not there, some of its files are not, or it is no ``nn.Module``.
        UsageError: A module without a recipe has no declared inputs and outputs.
    """
    if _is_function(request.text) or request.text.endswith(".py"):
        model = find_model(request)  # refuses to stream it
        for part in model.parts:
            part.module.to("meta")
        return model
    recipe, checkpoint = _recipe_for(request, planned_files)
    _loader(recipe, request)  # a wrong word is told here as there
    return _loaded(recipe.outline, checkpoint, request.text)


def _of_part(
    given: Callable[[], Any], names: Sequence[str], part: Part
) -> Iterable[Mapping[str, np.ndarray]]:
    """Return the user's cases of one part, or the recipe's own where there are none.

    Raises:
        SourceError: They are not sorted by part, or by parts that the model has not.
    """
    cases = given()
    if not isinstance(cases, dict):
        raise SourceError(
            f"the model has several parts, and [cases] gives a {type(cases).__name__}",
            do=f'return a dict of part -> list of cases, such as {{"{part.name}": [...]}}',
        )
    for name in cases:
        if name not in names:
            raise SourceError(f"[cases] speaks of the part '{name}'{did_you_mean(name, names)}")
    if part.name not in cases and part.given is not None:
        return part.given()
    return cast("Iterable[Mapping[str, np.ndarray]]", cases.get(part.name, []))


def load_module(text: str, folder: Path) -> nn.Module:
    """Call ``file.py:function`` or ``package.module:function`` and return the module it makes.

    Raises:
        SourceError: It cannot be imported, fails, or returns something else.
    """
    function = load_function(text, folder)
    try:
        module = function()
    except Exception as err:
        raise SourceError(
            f"'{text}' fails: {type(err).__name__}: {first_line(err)}", where=user_line_of(err)
        ) from err
    if not isinstance(module, nn.Module):
        raise SourceError(
            f"'{text}' returns a {type(module).__name__}, not a torch.nn.Module",
            do="return the module itself, in eval mode",
        )
    return module


def load_function(text: str, folder: Path) -> Callable[[], Any]:
    """Import the function that ``file.py:function`` or ``package.module:function`` names.

    Returns:
        It; what it imports while it runs is found beside its file, too.
    """
    function: Callable[[], Any] = load_value(text, folder)
    beside = _beside(text, folder)

    @wraps(function)
    def call() -> Any:
        with _importable(folder, beside):
            answer = function()
            return list(answer) if isinstance(answer, Generator) else answer

    return call


def load_value(text: str, folder: Path, what: str = "function") -> Any:
    """Import what ``file.py:name`` or ``package.module:name`` names; ``what`` it is stands in the errors.

    Raises:
        SourceError: It is not there, or its file fails.
    """
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        raise SourceError(f"'{text}' names no {what}", do=f"write file.py:{what} or package.module:{what}")
    beside = _beside(text, folder)
    with _importable(folder, beside):
        _forget_namesakes(beside.resolve())
        module = _import_file(folder, place) if place.endswith(".py") else _import_module(place)
    if not hasattr(module, name):
        known = [n for n, v in vars(module).items() if _may_be(v, what) and not n.startswith("_")]
        raise SourceError(f"'{place}' has no {what} '{name}'{did_you_mean(name, known)}")
    return getattr(module, name)


def _may_be(value: object, what: str) -> bool:
    return isinstance(value, dict) if what == "table" else callable(value)


def _beside(text: str, folder: Path) -> Path:
    """Return the folder that a file's imports are looked for in first."""
    place = text.rpartition(":")[0]
    return (folder / place).resolve().parent if place.endswith(".py") else folder


def _import_file(folder: Path, place: str) -> Any:
    path = folder / place
    if not path.is_file():
        raise SourceError(
            f"there is no file '{place}'", where=folder.name or None, do="give file.py:function"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SourceError(f"'{place}' is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # torch.export and pickle-free dataclasses look classes up there
    try:
        spec.loader.exec_module(module)
    except Exception as err:
        sys.modules.pop(path.stem, None)
        raise SourceError(
            f"'{place}' cannot be imported: {type(err).__name__}: {first_line(err)}",
            where=user_line_of(err),
        ) from err
    return module


def _forget_namesakes(folder: Path) -> None:
    """Forget modules of another project that bear the names of this one's files, such as ``model``."""
    names = {file.stem for file in folder.glob("*.py")}
    names |= {file.parent.name for file in folder.glob("*/__init__.py")}
    for name in names:
        known = getattr(sys.modules.get(name), "__file__", None)
        if known is None or not is_users(known):
            continue
        path = Path(known).resolve()
        home = path.parents[1] if path.name == "__init__.py" else path.parent
        if home != folder:
            for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                del sys.modules[loaded]


def _import_module(place: str) -> Any:
    try:
        return importlib.import_module(place)
    except Exception as err:
        raise SourceError(
            f"'{place}' cannot be imported: {type(err).__name__}: {first_line(err)}",
            where=user_line_of(err),
        ) from err


@contextmanager
def _importable(*folders: Path) -> Iterator[None]:
    """Let imports look into these folders, the last one first."""
    texts = [str(folder.resolve()) for folder in folders]
    for text in texts:
        sys.path.insert(0, text)
    try:
        yield
    finally:
        for text in texts:
            sys.path.remove(text)


def _is_function(text: str) -> bool:
    place, _, name = text.rpartition(":")
    return bool(place) and name.isidentifier()


def _public_name(text: str) -> str:
    """A source without the folders before its file, which are this machine's own affair."""
    place, _, name = text.rpartition(":")
    return f"{Path(place).name}:{name}" if place.endswith(".py") else text


def checkpoint_of(request: SourceRequest) -> str | Path | None:
    """Return the folder, file or Hugging Face id that a source is; ``None`` for a function."""
    if _is_function(request.text):
        return None
    place = request.folder / request.text
    return place if place.is_dir() or recipe_for_file(place.suffix) is not None else request.text


def _recipe_for(request: SourceRequest, check: Callable[[Path], object]) -> tuple[Recipe, str | Path]:
    """Return the recipe of a checkpoint, and the checkpoint; ``check`` looks at the files of a folder."""
    checkpoint = checkpoint_of(request) or request.text
    if isinstance(checkpoint, Path) and not checkpoint.is_dir():
        recipe = recipe_for_file(checkpoint.suffix)
        return cast("Recipe", recipe), checkpoint
    architecture = _architecture(checkpoint)
    found = recipe_for(architecture)
    if found is None:
        known = ", ".join(sorted(a for entry in RECIPES.values() for a in entry.architectures))
        raise SourceError(
            f"no recipe knows the architecture '{architecture}' (known: {known})",
            do="give a function that returns the module: file.py:function, with --input and --output",
        )
    if isinstance(checkpoint, Path):
        check(checkpoint)  # a missing file is told before anything long starts
    return found, checkpoint


def _loader(recipe: Recipe, request: SourceRequest) -> Callable[[str | Path], Model]:
    """Return what loads a checkpoint, with the adapters that are asked for."""
    adapters = _adapters(recipe, request)
    if request.streamed:
        if not isinstance(recipe, StreamableRecipe):
            raise _never_streamed(request.text)
        return partial(recipe.load_streamed, adapters=adapters)
    return (
        partial(cast("AdaptableRecipe", recipe).load_adapted, adapters=adapters) if adapters else recipe.load
    )


def _never_streamed(text: str) -> UsageError:
    return UsageError(
        f"the weights of '{text}' cannot be streamed",
        where="--weights",
        do="build without it: only pipelines of diffusers that a recipe knows are made without their weights",
    )


def _adapters(recipe: Recipe, request: SourceRequest) -> list[Adapter]:
    """Return the adapters that are asked for; a wrong file is told before anything long starts."""
    adapters = [adapter_from(text, request.folder) for text in request.adapters]
    if adapters and not isinstance(recipe, AdaptableRecipe):
        raise UsageError(f"no LoRA can be merged into '{request.text}'", do="merge it with its own tools")
    for adapter in adapters:
        check_adapter(adapter)
    return adapters


def _loaded(take_apart: Callable[[str | Path], Model], checkpoint: str | Path, text: str) -> Model:
    try:
        return take_apart(checkpoint)
    except (OSError, ValueError, RuntimeError) as err:
        raise SourceError(f"'{text}' does not load: {first_line(err)}") from err


def _architecture(checkpoint: str | Path) -> str:
    """Return what a checkpoint calls itself; a pipeline of diffusers says it in a file of its own."""
    config = _local_config(checkpoint) if isinstance(checkpoint, Path) else _download_config(checkpoint)
    try:
        content: Mapping[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        return str(content["_class_name"] if config.name == _PIPELINE else content["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError) as err:
        raise SourceError(
            f"'{Path(checkpoint).name}' has no config.json that names its architecture",
            do="give a checkpoint folder, a Hugging Face id, or file.py:function",
        ) from err


def _local_config(folder: Path) -> Path:
    config, pipeline = folder / "config.json", folder / _PIPELINE
    return pipeline if pipeline.is_file() and not config.is_file() else config


def _download_config(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        try:
            return Path(hf_hub_download(name, "config.json"))
        except EntryNotFoundError:
            return Path(hf_hub_download(name, _PIPELINE))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as err:
        raise SourceError(
            f"'{name}' is no folder here and no file.py:function, and the Hugging Face hub says: "
            f"{first_line(err)}"
        ) from err


def _given(request: SourceRequest) -> Callable[[], Iterable[Mapping[str, np.ndarray]]] | None:
    if request.cases is None:
        return None
    if not _is_function(request.cases):
        raise UsageError(f"cases '{request.cases}' is no function", do="write file.py:function")
    return load_function(request.cases, request.folder)
