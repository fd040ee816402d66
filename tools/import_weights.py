"""python tools/import_weights.py KIND FILE --out RUN: foreign weights -> a run folder like any other."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    from fastface.foreign import KINDS, import_weights

    parser = argparse.ArgumentParser(description=__doc__)
    kinds = "; ".join(f"{name}: {kind.about}" for name, kind in KINDS.items())
    parser.add_argument("kind", help=kinds)
    parser.add_argument("file", type=Path, help="a .pt, .pth, .ckpt (read with weights_only) or .safetensors file")
    parser.add_argument("--out", type=Path, required=True, help="the run folder to make")
    options = parser.parse_args()
    try:
        print(import_weights(options.kind, options.file, options.out))
    except (ValueError, OSError) as error:
        print(f"import_weights.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
