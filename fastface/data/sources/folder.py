"""person/image.* in a directory or an uncompressed .tar -> Source, or one each for train/ and val/."""

import unicodedata
import warnings
from pathlib import Path

from fastface.data.sources import printable
from fastface.data.sources.scan import FileSource, Scan, left_out, scan

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def open_folder(path: Path) -> dict[str, FileSource]:
    """Scan a directory or .tar of person/image files: {"": source}, or train, val and test with a source each.

    A person is the first folder (below the split); files deeper down belong to it. Links, hidden and system
    files, unsafe names, files not named as images and folders without images go to `skipped` with the reason.
    Records are sorted by name, folder by folder. Raises ValueError where no image is found or the splits are
    ambiguous.
    """
    found = scan(path)
    splits = find_splits(path, found.names)
    depth = 1 if splits else 0
    keep = [i for i, name in enumerate(found.names) if name.count("/") > depth]
    found.skipped += [(name, "outside-a-class-folder") for name in found.names if name.count("/") <= depth]
    filled = {"/".join(found.names[i].split("/")[: depth + 1]) for i in keep}
    found.skipped += [(name, "no-images") for name in found.folders - filled if name.count("/") == depth]
    found.skipped.sort()
    if not keep:
        raise ValueError(
            f"no images found in {path}; expected PERSON/IMAGE.jpg, or train/ and val/ with such folders. "
            f"Left out: {left_out(found.skipped)}"
        )
    if not splits:
        return {"": _source(path, found.take(keep), depth, found.skipped)}
    sources: dict[str, FileSource] = {}
    for top, split in splits.items():
        part = [i for i in keep if found.names[i].startswith(top + "/")]
        if not part:
            raise ValueError(f"{path}/{top} has no PERSON/IMAGE.jpg; fill or remove it")
        mine = {top, *(name for name, _ in found.skipped if "/" not in name)} if split == "train" else {top}
        skipped = [item for item in found.skipped if item[0].split("/")[0] in mine]
        sources[split] = _source(path, found.take(part), depth, skipped)
    return sources


def _source(path: Path, found: Scan, depth: int, skipped: list[tuple[str, str]]) -> FileSource:
    source = FileSource(path, found, (name.split("/")[depth] for name in found.names), skipped)
    _warn_of_equal_looks(source.classes, path)
    return source


def find_splits(path: Path, names: list[str]) -> dict[str, str]:
    """Map top folders to train, val, test where that is the layout; {} where the top folders are persons."""
    deep = {name.split("/")[0] for name in names if name.count("/") > 1}
    tops = {name.split("/")[0] for name in names if "/" in name}
    found = {top: split for top, split in _SPLITS.items() if top in tops}
    if "train" not in deep or (len(found) == 1 and len(tops) > 1):
        return {}
    extra = sorted(tops - set(found))
    if extra:
        listed = ", ".join(map(printable, extra[:3]))
        raise ValueError(f"{path} has {' and '.join(found)} beside {len(extra)} other folders ({listed}); move them")
    if len(set(found.values())) < len(found):
        raise ValueError(f"{path} has several folders for one split: {', '.join(found)}; keep one of each")
    return found


def _warn_of_equal_looks(classes: list[str], root: Path) -> None:
    """Warn of folder names that differ only in how accents are composed: probably one person twice."""
    seen: dict[str, str] = {}
    for name in classes:
        if name.isascii():
            continue
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            text = f"{root}: two folders are both shown as {printable(name)!r} (composed and decomposed accents)"
            warnings.warn(f"{text}; they count as two persons, rename one if they are one", stacklevel=5)
