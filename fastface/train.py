"""accelerate launch fastface/train.py --config FILE... [--resume [RUN]] [--section.option value ...]"""

import sys


def main() -> int:
    from fastface.command import parse_command

    command = parse_command()
    from fastface.run import build_run
    from fastface.trainer import train

    try:
        return train(build_run(command))
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr, flush=True)
        return 5 if isinstance(error, FloatingPointError) else 4 if isinstance(error, OSError) else 2


if __name__ == "__main__":
    sys.exit(main())
