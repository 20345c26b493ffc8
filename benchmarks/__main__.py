"""The one entry to all benchmarks: ``python -m benchmarks NAME [--json FILE] [--quick] [--workdir DIR]``.

Every benchmark is a module of this package with ``run(workdir, quick) -> dict[str, float]``;
it makes its own data and measures its peers in the same run.  One with a ``main(arguments) -> exit code`` reads its own
options: ``python -m benchmarks fingerprint --help``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

import benchmarks


def main() -> None:
    """Run one benchmark, print its numbers and, if asked, write them as flat JSON."""
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))
    own = getattr(_module(sys.argv[1]), "main", None) if sys.argv[1:2] and sys.argv[1] in names else None
    if own:
        sys.exit(own(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("name", choices=names)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--quick", action="store_true", help="small data: does it run, not how fast")
    parser.add_argument("--workdir", type=Path, help="keep the data here (default: a temporary directory)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="camcal-bench-") as temporary:
        workdir = options.workdir or Path(temporary)
        workdir.mkdir(parents=True, exist_ok=True)
        numbers = _module(options.name).run(workdir, options.quick)
    table = Table("number", "value", title=f"benchmark {options.name}{' (quick)' if options.quick else ''}")
    for key, value in numbers.items():
        table.add_row(key, f"{value:.4g}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2, sort_keys=True) + "\n")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}")


if __name__ == "__main__":
    main()
