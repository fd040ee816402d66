"""Embed every image of a shard set: arguments in, one call of fastface.embedding out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

EPILOG = """\
examples:
  python tools/embed.py --checkpoint RUN --shards shards/me --out embeddings/me
  torchrun --nproc_per_node 2 tools/embed.py --checkpoint RUN --shards shards/me --out embeddings/me

Row i of FOLDER/embeddings.npy is record i of the set, as the model gives it; NaN where an image failed, which is
listed in FOLDER/failed.csv. Stopped or killed, the same command goes on, with any number of processes.

exit codes: 0 done, 2 wrong model, shards or folder, 4 storage, 130 stopped, what is done is kept"""


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="embed.py",
        description="A model and a shard set -> a folder with an embedding for every image.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="RUN", help="run or step folder, or an .onnx file"
    )
    parser.add_argument("--shards", required=True, metavar="SET", help="a shard set, or its URL")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where embeddings go")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda (one for each process), or cuda:N")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, help="of each process (default: the cores, shared by its processes)")
    options = parser.parse_args(arguments)
    from fastface.embedding import embed_shards

    try:
        report = embed_shards(
            options.checkpoint,
            options.shards,
            options.out,
            device=options.device,
            batch_size=options.batch_size,
            threads=options.threads,
        )
    except (ValueError, OSError) as error:
        print(f"embed.py: {error}", file=sys.stderr)
        return 4 if isinstance(error, OSError) else 2
    except KeyboardInterrupt as stop:
        print(f"embed.py: {stop or 'stopped; the same command goes on from here'}", file=sys.stderr)
        return 130
    if report:
        print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
