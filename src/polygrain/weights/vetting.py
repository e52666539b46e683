"""What a torch file would call when it is opened, looked up without calling anything.

torch's own reader of plain weights refuses all but a list of names, too; the list here is shorter, leaves out what can
be asked to allocate any amount of memory, and lets the error say what was refused.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

ZIP = b"PK\x03\x04"
LEGACY_PICKLES = 5  # magic number, version, system, content, names of storages; numbers follow
TENSORS = {
    "torch._utils": {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"},
    "collections": {"OrderedDict", "Counter"},
    "_codecs": {"encode"},  # how bytes are written
    "builtins": {"set"},
    "__builtin__": {"set"},
    "argparse": {"Namespace"},
    "torch": {
        "Size",
        "device",
        *("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"),
        *(f"{kind}Storage" for kind in ("Half", "BFloat16", "Float", "Double", "Char", "Short", "Int", "Long", "Byte")),
        "BoolStorage",
    },
}
MEND = "only tensors, numbers and text are taken; where you trust the file, save its tensors anew as safetensors"


def vet(path: Path, also: frozenset[str]) -> None:
    """Looks through a torch file, zipped or of the older kind.

    Args:
        also: further names that the file may refer to, as `module.name`.

    Raises:
        ValueError: when the file is no such file, refers to other names than those of tensors, is TorchScript, or
            would unpack to more than its own size.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head == ZIP:
            _vet_archive(path, file, also)
        elif head[:1] == b"\x80":
            for _ in range(LEGACY_PICKLES):
                _vet_pickle(path, file, also)
        else:
            raise ValueError(f"{path} is neither a torch file nor safetensors; it begins with {head!r}")


def _vet_archive(path: Path, file: IO[bytes], also: frozenset[str]) -> None:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); get it again") from error
    with archive:
        members = archive.infolist()
        names = {member.filename.partition("/")[2] for member in members}
        if "constants.pkl" in names:
            raise ValueError(f"{path} refused: it is TorchScript, which is a program; {MEND}")
        unpacked = sum(member.file_size for member in members)
        if unpacked > path.stat().st_size or any(member.compress_type for member in members):
            raise ValueError(f"{path} refused: it would unpack to {unpacked:,} bytes; torch never compresses its files")
        if "data.pkl" not in names:
            raise ValueError(f"{path} is an archive, but not one of torch: it holds no data.pkl")
        for member in members:
            if member.filename.endswith(".pkl"):
                with archive.open(member) as pickled:
                    _vet_pickle(path, pickled, also)


def _vet_pickle(path: Path, file: IO[bytes], also: frozenset[str]) -> None:
    """One pickle, from where the file stands to its end."""
    for name in _names(path, file):
        module, _, last = name.rpartition(".")
        if name not in also and last not in TENSORS.get(module, ()):
            raise ValueError(f"{path} refused: opening it would reach for {name!r}; {MEND}")


def _names(path: Path, file: IO[bytes]) -> Iterator[str]:
    """All names that a pickle refers to, as `module.name`."""
    texts: list[str] = []
    for opcode, argument in _opcodes(path, file):
        if opcode in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode == "STACK_GLOBAL":  # its name was put on the stack before; repeated names come from the memo
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts = [*texts[-1:], argument]


def _opcodes(path: Path, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Names and arguments of a pickle's opcodes.

    Raises:
        ValueError: where it ends early or is no pickle.
    """
    try:
        for opcode, argument, _ in pickletools.genops(file):
            yield opcode.name, argument
    except OSError:
        raise
    except Exception as error:  # bytes from elsewhere can break the reader in any way
        raise ValueError(
            f"{path} is damaged or no torch file ({' '.join(str(error).split())}); get it again"
        ) from error
