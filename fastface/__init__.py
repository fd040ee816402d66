"""fastface: trains, evaluates and exports face models from WebDataset tar shards."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public names and where they live. Imported on first use, so that `import fastface` stays instant and the
# conversion tools never pay for torch.
_PUBLIC = {
    "Index": "fastface.data.index",
    "Verifier": "fastface.verifier",
    "load_embedder": "fastface.predictor",
    "load_config": "fastface.command",
    "build_backbone": "fastface.models",
}
__all__ = ["Index", "Verifier", "__version__", "build_backbone", "load_config", "load_embedder"]  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'fastface' has no attribute {name!r}; it offers {', '.join(__all__)}")
