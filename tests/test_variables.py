"""docs/variables.md: every variable of raws, products and statistics, made from the declarations.

``python -m tests.test_variables`` in the checkout writes the page.
"""

from pathlib import Path

import camcal_dask
from camcal_dask import rooms
from camcal_dask.isr.statistics import CORRECTED
from camcal_dask.schema import RAW, RAW_COORDS, Variable, Variables
from camcal_dask.verify.judging.levels import VERDICT

PAGE = Path(camcal_dask.__file__).parent.parent / "docs" / "variables.md"
HEAD = """# Variables

Made from the declarations (`camcal_dask/schema.py` and the rooms in `camcal_dask/calibs/`) by
`python -m tests.test_variables`; in a notebook, `cd.describe("ptc")`. `image` stands for the unit of the image,
`image^2` for its square.
"""


def row(v: Variable, unit: str) -> str:
    return f"| {v.name} | {', '.join(v.dims)} | {v.dtype} | {v.attrs(unit).get('units', '')} | {v.doc} | {v.nan} |"


def section(title: str, described, unit: str, also: str = "") -> str:
    rows = [row(v, unit) for v in described]
    table = ["| name | dims | type | unit | meaning | NaN |", "|---|---|---|---|---|---|", *rows, ""] if rows else []
    return "\n".join([f"## {title}", "", *([f"{also}{', and' if rows else '.'}", ""] if also else []), *table])


def page() -> str:
    parts = [
        HEAD,
        section("Raws", [RAW, *RAW_COORDS], "adu"),
        section("Corrected exposures", CORRECTED.values(), "image"),
        section("Verdicts", VERDICT.values(), "image"),
    ]
    shown: dict[str, Variables] = {}
    for product in sorted(rooms.products().values(), key=lambda p: (not p.is_calibration, p.name)):
        if not product.variables:
            continue
        title = f"{product.name}: {product.doc} [{product.unit}]"
        own = {**product.shared, **product.variables}
        base = max((n for n, v in shown.items() if v.items() <= own.items()), key=lambda n: len(shown[n]), default="")
        shown[product.name] = own
        rest = [v for name, v in own.items() if not base or name not in shown[base]]
        own_unit = ", in its own unit" if product.is_calibration else ""
        verdict = VERDICT.items() <= own.items()
        also = f"The variables of {base}{own_unit}" if base else "Those of a verdict" if verdict else ""
        rest = [v for v in rest if not verdict or v.name not in VERDICT]
        parts.append(section(title, rest, product.unit, also))
    return "\n".join(parts)


def test_the_page_is_made_from_the_declarations():
    assert PAGE.read_text() == page(), "run python -m tests.test_variables"


def test_every_variable_says_what_it_is():
    for product in rooms.products().values():
        for v in product.variables.values():
            assert v.doc, f"{product.name}.{v.name}"
            assert v.unit or v.flags or v.doc.endswith("in the unit of the test"), f"{product.name}.{v.name}"


if __name__ == "__main__":
    PAGE.write_text(page())
