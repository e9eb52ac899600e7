"""What is published of a model, of a converted baseline, and of an adapter."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi
from safetensors import SafetensorError, safe_open

from modeling_lrsa.model_card import own_card, places, read_json
from processing import PostError

from .card import Told, model_card
from .publishing import Publication, Published, Target, file_hash, full_id, hub_errors, is_repo_id, publish


WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
# Of what `save_pretrained` of model and processor write. A `Trainer` leaves more behind: pickles and its state.
MODEL_FILES = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json")
ADAPTER_FILES = ("adapter_config.json", ADAPTER)
SHARED_FILES = ("*_lrsa.py", "processor_config.json", "preprocessor_config.json", "tokenizer*", "*.model", "vocab.*")
SHARED_FILES += ("merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.*")
OWNED = ("model*.safetensors*", "adapter_*", "*_lrsa.py", "onnx/*", "training_args.bin")


def find_folder(name: str) -> Path:
    """Returns the folder of a model or adapter: `name` itself or, of what `lrsa train` wrote, `model` in it.

    Raises:
        PostError: there is none, or a part of it is missing or damaged.
    """
    if not Path(name).is_dir():
        raise PostError(f"{name}: no such folder; name one that `lrsa train` or `lrsa convert` wrote.")
    for folder in (Path(name) / "model", Path(name)):
        if any((folder / file).is_file() for file in ("adapter_config.json", "config.json")):
            check(folder)
            return folder
    raise PostError(f"{name}: holds no model: neither config.json nor adapter_config.json is here or in model/.")


def check(folder: Path) -> None:
    is_adapter = (folder / "adapter_config.json").is_file()
    if not is_adapter:
        config = read_json(folder / "config.json")
        if config.get("model_type") != "lrsa":
            raise PostError(f"{folder}: is a {config.get('model_type')}, no LRSA model.")
        if "auto_map" not in config or not (folder / "modeling_lrsa.py").is_file():
            raise PostError(f"{folder}: lacks the code of the model; save it anew by save_pretrained.")
    if not (folder / "processor_config.json").is_file() or not (folder / "processing_lrsa.py").is_file():
        raise PostError(
            f"{folder}: lacks its processor; save it here, too: processor.save_pretrained({str(folder)!r})."
        )
    index = folder / "model.safetensors.index.json"
    names = [ADAPTER] if is_adapter else [WEIGHTS]
    if not is_adapter and index.is_file():
        names = sorted(set(read_json(index)["weight_map"].values()))
    for name in names:
        try:
            with safe_open(folder / name, framework="np"):
                pass
        except FileNotFoundError as error:
            raise PostError(f"{folder}: lacks {name}, its weights; save it anew by save_pretrained.") from error
        except (OSError, SafetensorError) as error:
            raise PostError(f"{folder / name}: is damaged ({error}); save the model anew.") from error


def model_publication(
    folder: Path, repo: str, told: Told = Told(), onnx: str | None = None, base: str | None = None
) -> Publication:
    """Collects what is published of a folder that `find_folder` found; `base` is the id of an adapter's base.

    A `README.md` of your own in it is the card; else the card is written.
    """
    is_adapter = (folder / "adapter_config.json").is_file()
    patterns = (ADAPTER_FILES if is_adapter else MODEL_FILES) + SHARED_FILES
    files: dict[str, Path | bytes] = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns)
    }
    for place in places(folder):
        files |= {name: place / name for name in ("results.json", "test_results.json") if (place / name).is_file()}
    if is_adapter:
        config = read_json(folder / "adapter_config.json") | {"base_model_name_or_path": base}
        files["adapter_config.json"] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    else:
        files["config.json"] = without_places(folder / "config.json")
        files |= {path.name: path for path in Path(__file__).parent.glob("handler.py")}
    if onnx is not None:
        files |= onnx_files(Path(onnx))
    own = own_card(folder)
    if own is not None and told != Told(space=told.space):
        raise PostError(
            f"{own}: is the card; write licence, tags and data set into it, or remove it to have one written."
        )
    files["README.md"] = own or model_card(folder, repo, told, base).encode()
    message = f"LRSA {'adapter' if is_adapter else 'model'}"
    return Publication("model", repo, files, OWNED, "*_lrsa.py", message)


def without_places(path: Path) -> bytes:
    """A configuration without the paths of folders on this machine that parts came from, byte for byte else."""
    text = path.read_text(encoding="utf-8")
    config = json.loads(text)
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    for name in {part.get("_name_or_path") for part in parts} - {None, ""}:
        if Path(name).is_absolute() or Path(name).is_dir():
            text = text.replace(f'"_name_or_path": {json.dumps(name)}', '"_name_or_path": ""')
    return text.encode()


def onnx_files(folder: Path) -> dict[str, Path | bytes]:
    if not (folder / "encoder.onnx").is_file():
        raise PostError(f"{folder}: holds no encoder.onnx; name a folder that export_onnx wrote.")
    return {
        f"onnx/{path.name}": without_places(path) if path.name == "config.json" else path
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


def push_adapter(folder: Path, repo: str, base: str | None, target: Target, told: Told) -> list[Published]:
    """Publishes an adapter that names its base by a repository id.

    Where its base lies in a folder here, or was built from pre-trained parts, the base goes to the repository `base`
    first, unless it is there already.
    """
    named = base_name(folder)
    if has_public_base(folder, base):
        if not is_on_hub(named):
            raise PostError(
                f"{folder}: its base {named} is not on the Hub; where that is a folder, run this beside it, or push "
                "the merged model."
            )
        return publish((model_publication(folder, repo, told, base=named), target))
    base = full_id(base)
    with base_folder(folder, named) as place:
        if (place / "adapter_config.json").is_file():
            raise PostError(f"{folder}: its base {named} is an adapter, too; push the merged model.")
        goes = [(model_publication(folder, repo, told, base=base), target)]
        if not is_there(place, base):
            of_base = model_publication(place, base, Told(told.license, adapter=None if named else repo))
            of_base.message = f"Base of {repo}"
            goes.insert(0, (of_base, Target(private=target.private)))
        return publish(*goes)


def base_name(folder: Path) -> str | None:
    return read_json(folder / "adapter_config.json").get("base_model_name_or_path")


def has_public_base(folder: Path, base: str | None) -> bool:
    """Whether an adapter's base is named by the id of a repository.

    Raises:
        PostError: it is not and `base` says no repository for it, or it is and `base` says another.
    """
    named = base_name(folder)
    if named and is_repo_id(named):
        if base not in (None, named):
            raise PostError(f"{folder}: its base is {named}; leave out --base.")
        return True
    if base is None:
        where = f"lies in {named}" if named else "was built from pre-trained parts"
        raise PostError(
            f"{folder}: its base {where}, where nobody else finds it: name a repository for it by --base, or push the "
            "merged model."
        )
    return False


def is_on_hub(repo: str) -> bool:
    with hub_errors(Publication("model", repo, {}, (), "", "")):
        return HfApi().repo_exists(repo)


def is_there(folder: Path, base: str) -> bool:
    """Whether the repository `base` is on the Hub with the weights of `folder`.

    Raises:
        PostError: it has other weights.
    """
    if not is_on_hub(base):
        return False
    with hub_errors(Publication("model", base, {}, (), "", "")):
        files = HfApi().model_info(base, files_metadata=True).siblings
    weights = [file for file in files if file.rfilename == WEIGHTS]
    if not weights:
        return False
    if weights[0].lfs is None or weights[0].lfs.sha256 != file_hash(folder / WEIGHTS):
        raise PostError(f"{base}: holds another model than the base of this adapter; name another repository.")
    return True


@contextmanager
def base_folder(folder: Path, base: str | None) -> Iterator[Path]:
    """The base of an adapter as a folder; built anew, with the same weights each time, where it was never saved."""
    if base:
        yield find_folder(base)
        return
    from transformers import set_seed

    from modeling_lrsa import LRSAConfig
    from modeling_lrsa.adapters import build_base
    from processing import LRSAProcessor

    with TemporaryDirectory() as temporary:
        try:
            set_seed(0)
            build_base(LRSAConfig.from_pretrained(folder)).save_pretrained(temporary)
            LRSAProcessor.from_pretrained(folder).save_pretrained(temporary)
        except (OSError, RuntimeError, ValueError) as error:
            raise PostError(f"{folder}: its base can't be built: {' '.join(str(error).split())}") from error
        yield Path(temporary)
