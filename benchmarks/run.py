"""All measures, one after the other: ``make bench``. Makes the lab's hosts bare first; takes some minutes."""

from __future__ import annotations

from benchmarks import from_bare, knowing, readiness, second_deploy


def main() -> None:
    for measure in (from_bare, second_deploy, readiness, knowing):
        print(f"== {measure.__name__}", flush=True)
        measure.main()


if __name__ == "__main__":
    main()
