"""python3 -m lab.machines COMMAND: what the programs lab/up, lab/down and so on run."""

from __future__ import annotations

import importlib
import sys

from lab.machines.ui import main

if __name__ == "__main__":
    command = importlib.import_module(f"lab.machines.{sys.argv.pop(1)}")
    main(command.main)
