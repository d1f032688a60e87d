"""``python -m stoker`` and the console script."""

from __future__ import annotations

import gc


def main() -> None:
    # What the imports make is no garbage, and looking for some in it takes an eighth of a short command's time.
    gc.set_threshold(100_000)
    from stoker.cli import app

    app()


if __name__ == "__main__":
    main()
