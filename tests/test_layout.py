"""The rules of the house, read from its source: where imports point, what is long, what is never called."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fastface"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ENTRIES = ("train", "evaluate", "export", "verify")

# Floors of the house, ground first. A module imports from its own floor or a lower one.
FLOORS = [
    {
        "section",
        "plan_settings",
        "task_settings",
        "eval_settings",
        "fusion_settings",
        "liveness_settings",
        "temporal_settings",
        "dist",
        "durable",
        "spelling",
        "timing",
        "collapse",
        "log",
    },
    {"data"},
    {"config"},  # lists what data can do: operators bring their own settings
    {"collect", "losses", "models", "metrics", "mining", "card", "detection", "ema"},
    {"heads", "optim"},
    {"conversion"},
    {"tasks"},
    # then the modules of fastface/ itself that are not named here: runs, what they leave, and what becomes of it
    set(ENTRIES),
]
FLOORS.insert(-1, {"assess", "ship"} | {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}.union(*FLOORS))
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

MAX_LINES = 300
MAX_LINES_OF = {"trainer.py": 250}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """Turn fastface/data/plan.py into fastface.data.plan, and a package's __init__.py into the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Walk the statements that run on import: into if, try and with, not into functions or TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield from statements(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from statements(handler.body)


def imports(path: Path, *, eager: bool) -> set[str]:
    """List what a file imports, by module: only what runs on import, or everything, in functions as well."""
    nodes = statements(tree(path).body) if eager else ast.walk(tree(path))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: import by full name"
            assert node.module
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in members}
    return found


def room(module: str) -> str | None:
    """Give the floor plan's name for a module of ours (fastface.data.plan -> data), None for fastface."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def test_every_room_has_a_floor() -> None:
    rooms = {name for name in map(room, MODULES) if name}
    assert len(SOURCES) > 20
    assert rooms - FLOOR_OF.keys() == set(), "put new rooms into FLOORS"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_down(path: Path) -> None:
    here = room(module_name(path))
    for target in imports(path, eager=False):
        top = target.split(".")[0]
        assert top not in {"tools", "tests", "benchmarks"}, f"{relative(path)} imports {target}, which is not shipped"
        there = room(target) if top == "fastface" else None
        if here is None or there is None or here == there:
            continue
        assert there not in ENTRIES, f"{relative(path)} imports the entry {target}"
        assert FLOOR_OF[there] <= FLOOR_OF[here], f"{relative(path)} imports {target}, which lies above it"


def test_no_import_goes_in_a_circle() -> None:
    """A circle works or fails by who is imported first: there is none among what runs on import."""
    graph = {name: imports(path, eager=True) & MODULES.keys() - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"imports in a circle: {' -> '.join([*above[above.index(name) :], name])}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("tool", ["make_shards", "check_shards", "make_faces"])
def test_conversion_starts_without_torch(tool: str) -> None:
    """Importing torch costs seconds and hundreds of megabytes in every worker."""
    queue, seen = [ROOT / "tools" / f"{tool}.py"], set()
    while queue:
        path = queue.pop()
        seen.add(path)
        for target in imports(path, eager=True):
            heavy = {"torch", "torchvision", "timm", "accelerate", "nvidia", "onnxruntime"}
            assert target.split(".")[0] not in heavy, f"{tool} loads {relative(path)}, which imports {target}"
            parts = target.split(".")
            packages = {".".join(parts[: n + 1]) for n in range(len(parts))}
            queue += [MODULES[name] for name in packages & MODULES.keys() if MODULES[name] not in seen]


def test_names_directly_in_the_package_are_not_the_standard_librarys() -> None:
    """`accelerate launch fastface/train.py` puts fastface/ first on sys.path: its names would hide theirs."""
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names & set(sys.stdlib_module_names) == set()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    limit = MAX_LINES_OF.get(path.relative_to(PACKAGE).as_posix(), MAX_LINES)
    assert lines <= limit, f"{relative(path)} has {lines} lines, and {limit} are allowed: split it by subject"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stem not in ENTRIES], ids=relative)
def test_modules_open_with_a_sentence(path: Path) -> None:
    first = (ast.get_docstring(tree(path)) or "").strip().split("\n\n")[0]
    assert first.endswith("."), f"{relative(path)} does not open with a sentence that says what it turns into what"


def test_train_holds_only_main() -> None:
    """Whatever else train.py held would exist twice: as __main__ and as fastface.train."""
    kinds = [type(node).__name__ for node in tree(PACKAGE / "train.py").body]
    names = [node.name for node in tree(PACKAGE / "train.py").body if isinstance(node, ast.FunctionDef)]
    assert names == ["main"]
    assert set(kinds) <= {"Expr", "Import", "ImportFrom", "FunctionDef", "If"}


def dangers(code: ast.Module) -> list[tuple[int, str]]:
    """List (line, reason) of calls that run code found in a file."""
    found = []
    safe_loaders = {"yaml.SafeLoader", "yaml.CSafeLoader", *_derived_from("SafeLoader", code)}
    for node in ast.walk(code):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in {"eval", "exec"}:
            found.append((node.lineno, f"{name}() runs text as code"))
        elif name.split(".")[0] in {"pickle", "cPickle", "dill", "cloudpickle", "joblib"} and "load" in name:
            found.append((node.lineno, f"{name}() runs what the file says; use an allow-list unpickler"))
        elif name in {"pickle.Unpickler", "Unpickler"}:
            found.append((node.lineno, f"{name}() needs a subclass whose find_class has an allow-list"))
        elif name == "torch.load" and options.get("weights_only") != "True":
            found.append((node.lineno, "torch.load() needs weights_only=True"))
        elif name == "np.load" and options.get("allow_pickle", "False") != "False":
            found.append((node.lineno, "np.load() must not allow pickles"))
        elif name in {"yaml.load", "yaml.load_all"} and options.get("Loader") not in safe_loaders:
            found.append((node.lineno, f"{name}() needs a safe loader"))
    return found


def _derived_from(base: str, code: ast.Module) -> set[str]:
    classes = [node for node in ast.walk(code) if isinstance(node, ast.ClassDef)]
    return {node.name for node in classes if any(ast.unparse(parent).endswith(base) for parent in node.bases)}


def unguarded_unpicklers(code: ast.Module) -> list[tuple[int, str]]:
    """List classes that derive from Unpickler without a find_class of their own."""
    return [
        (node.lineno, f"class {node.name} has no find_class")
        for node in ast.walk(code)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith("Unpickler") for base in node.bases)
        and "find_class" not in {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    ]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_runs_as_code(path: Path) -> None:
    found = dangers(tree(path)) + unguarded_unpicklers(tree(path))
    assert found == [], f"{relative(path)}: {found}"


@pytest.mark.parametrize(
    "code",
    [
        "pickle.load(f)",
        "pickle.loads(b)",
        "pickle.Unpickler(f).load()",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f, yaml.Loader)",
        "eval('1')",
        "joblib.load(f)",
        "class U(pickle.Unpickler):\n    pass",
    ],
)
def test_the_search_for_running_files_finds_them(code: str) -> None:
    assert dangers(ast.parse(code)) + unguarded_unpicklers(ast.parse(code))


def test_the_search_for_running_files_lets_the_safe_ones_be() -> None:
    code = "model.eval()\ntorch.load(f, weights_only=True)\nnp.load(f)\nyaml.safe_load(f)\njson.load(f)\n"
    code += "class L(yaml.SafeLoader):\n    pass\nyaml.load(f, Loader=L)"
    assert dangers(ast.parse(code)) == []


_NAME = re.compile(r"(?:[\w.-]+/)*[\w.-]+(?:\.[a-z]+|/)|LICENSE|Makefile|\.ci/run")


def listed_paths(block: str) -> tuple[set[str], set[str]]:
    """Read (files, folders) from a tree: names open a line; indentation and folders before them say where."""
    files: set[str] = set()
    folders: set[str] = set()
    above: list[tuple[int, str]] = []  # (column, folder) of the folders a line may lie in
    for line in block.splitlines():
        plain = re.sub(r"[│├└─|`]", " ", line)
        indent = len(plain) - len(plain.lstrip())
        above = [(column, folder) for column, folder in above if column < indent]
        base = above[-1][1] if above else ""
        for word in plain.split():
            name = word.rstrip(",")
            if not _NAME.fullmatch(name):
                break  # the description begins
            if name.endswith("/"):
                base = base + name
                folders.add(base)
                above.append((indent, base))
            else:
                files.add(base + name)
    return files, folders


def readme_tree() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    trees = [block for block in blocks if block.startswith("fastface/")]
    assert trees, "README.md shows no tree: a ``` block that starts with 'fastface/'"
    return trees[0]


def test_a_tree_is_read_as_it_is_drawn() -> None:
    block = (
        "fastface/\n  train.py  export.py    entries, main() only\n  data/        in the order of travel\n"
        "    sources/   raw -> Record: folder, list.\n      rec.py\n    plan.py  which records\n"
        "  heads/  margin_head.py  one head\ntools/  make_shards.py\n  make_faces.py  draws\n"
        "Makefile  setup.py  shim\n"
    )
    files, folders = listed_paths(block)
    assert folders == {"fastface/", "fastface/data/", "fastface/data/sources/", "fastface/heads/", "tools/"}
    assert files == {
        "fastface/train.py",
        "fastface/export.py",
        "fastface/data/sources/rec.py",
        "fastface/data/plan.py",
        "fastface/heads/margin_head.py",
        "tools/make_shards.py",
        "tools/make_faces.py",
        "Makefile",
        "setup.py",
    }


def test_readme_lists_what_exists() -> None:
    files, folders = listed_paths(readme_tree())
    missing = sorted(name for name in files if not (ROOT / name).is_file())
    missing += sorted(name for name in folders if not (ROOT / name).is_dir())
    assert missing == [], "README's tree names what is not there"


def test_readme_lists_every_file() -> None:
    files, _ = listed_paths(readme_tree())
    there = {relative(path) for folder in ("fastface", "tools") for path in (ROOT / folder).rglob("*.py")}
    unlisted = sorted(name for name in there - files if not name.endswith("__init__.py"))
    assert unlisted == [], "README's tree does not name these"
