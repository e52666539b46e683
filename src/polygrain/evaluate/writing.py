"""Tables of vectors on disk: parquet, or a NumPy file with a CSV beside it; written by batches, whole or not at all."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polygrain.weights.durable import write_durably

Columns = Mapping[str, str]  # type by name, in pyarrow's words
KINDS = (".parquet", ".npy")


class Rows(NamedTuple):
    """Some rows of the table."""

    vectors: NDArray[np.float32]  # (n, D)
    beside: Mapping[str, Any]  # by column, n values


def check_out(out: Path) -> None:
    """Whether such a file can be written here.

    Raises:
        ValueError: when it is of another kind, its folder is missing, or parquet is not installed.
    """
    if out.suffix not in KINDS:
        raise ValueError(f"{out} ends in {out.suffix or 'nothing'}; wanted {' or '.join(KINDS)}")
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} to write {out.name} into")
    if out.suffix == ".parquet":
        _parquet()


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            "parquet files need pyarrow: pip install 'polygrain[parquet]', or write a .npy file"
        ) from error
    return pyarrow, pyarrow.parquet


def write_rows(
    out: Path, rows: Iterator[Rows], columns: Columns, facts: Mapping[str, Any]
) -> tuple[tuple[Path, ...], int]:
    """Writes the table; returns its files and how many rows it has.

    Args:
        columns: those beside the vector.
        facts: what the table is of; in parquet under the key `polygrain` of its metadata.
    """
    counted = _Counted(rows)
    if out.suffix == ".parquet":
        write_durably(out, lambda file: _write_parquet(file, counted, columns, facts))
        return (out,), counted.count
    names, about = out.with_suffix(".csv"), out.with_suffix(".json")

    def both(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        write_durably(out, lambda array: _write_array(array, text, counted, columns))
        text.detach()

    write_durably(names, both)
    content = json.dumps({**facts, "rows": counted.count}, indent=2).encode()
    write_durably(about, lambda file: file.writelines([content]))
    return (out, names, about), counted.count


class _Counted:
    def __init__(self, rows: Iterator[Rows]) -> None:
        self.rows, self.count = rows, 0

    def __iter__(self) -> Iterator[Rows]:
        for part in self.rows:
            self.count += len(part.vectors)
            yield part


def _write_parquet(file: BinaryIO, rows: _Counted, columns: Columns, facts: Mapping[str, Any]) -> None:
    arrow, parquet = _parquet()
    writer = None
    for part in rows:
        dim = part.vectors.shape[1]
        if writer is None:
            fields = [*columns.items(), ("vector", arrow.list_(arrow.float32(), dim))]
            schema = arrow.schema(fields, metadata={"polygrain": json.dumps(facts)})
            writer = parquet.ParquetWriter(file, schema)
        flat = arrow.array(np.ascontiguousarray(part.vectors).reshape(-1))
        arrays = [arrow.array(_text(part.beside[name]), schema.field(name).type) for name in columns]
        arrays.append(arrow.FixedSizeListArray.from_arrays(flat, dim))
        writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
    if writer is None:
        raise ValueError("no image can be decoded, so there is no vector to write")
    writer.close()


def _text(values: Any) -> Any:
    """Names of files may hold any byte; what is no text is written as an escape."""
    if not isinstance(values, list):
        return values
    return [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in values]


def _write_array(file: BinaryIO, names: io.TextIOWrapper, rows: _Counted, columns: Columns) -> None:
    """The header is written again when the number of rows is known; NumPy leaves room for a number of any length."""
    table = csv.writer(names)
    table.writerow(columns)
    dim = None
    for part in rows:
        if dim is None:
            dim = part.vectors.shape[1]
            _header(file, 0, dim)
        file.write(np.ascontiguousarray(part.vectors, dtype="<f4").tobytes())
        table.writerows(zip(*(_plain(part.beside[name]) for name in columns), strict=True))
    if dim is None:
        raise ValueError("no image can be decoded, so there is no vector to write")
    file.seek(0)
    _header(file, rows.count, dim)


def _header(file: BinaryIO, rows: int, dim: int) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)})


def _plain(values: Any) -> list[Any]:
    return [
        f"{v:.6g}" if isinstance(v, float) else v for v in (values if isinstance(values, list) else values.tolist())
    ]
