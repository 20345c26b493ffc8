"""docs/variables.md: every variable of raws, products and statistics, made from the declarations.

``python -m tests.test_variables`` in the checkout writes the page.
"""

from pathlib import Path

import camcal_dask
from camcal_dask import rooms
from camcal_dask.isr.statistics import CORRECTED
from camcal_dask.schema import RAW, RAW_COORDS, Variable

PAGE = Path(camcal_dask.__file__).parent.parent / "docs" / "variables.md"
HEAD = """# Variables

Made from the declarations (`camcal_dask/schema.py` and the rooms in `camcal_dask/calibs/`) by
`python -m tests.test_variables`; in a notebook, `cd.describe("ptc")`. `image` stands for the unit of the image,
`image^2` for its square.
"""


def row(v: Variable, unit: str) -> str:
    return f"| {v.name} | {', '.join(v.dims)} | {v.dtype} | {v.attrs(unit).get('units', '')} | {v.doc} | {v.nan} |"


def section(title: str, described, unit: str) -> str:
    rows = [row(v, unit) for v in described]
    return "\n".join(
        [f"## {title}", "", "| name | dims | type | unit | meaning | NaN |", "|---|---|---|---|---|---|", *rows, ""]
    )


def page() -> str:
    parts = [
        HEAD,
        section("Raws", [RAW, *RAW_COORDS], "adu"),
        section("Corrected exposures", CORRECTED.values(), "image"),
    ]
    shown: dict[int, str] = {}
    for product in sorted(rooms.products().values(), key=lambda p: (not p.is_calibration, p.name)):
        if not product.variables:
            continue
        same = shown.setdefault(id(product.variables), product.name)
        title = f"{product.name}: {product.doc} [{product.unit}]"
        parts.append(
            section(title, product.variables.values(), product.unit)
            if same == product.name
            else f"## {title}\n\nThe variables of {same}, in its own unit.\n"
        )
    return "\n".join(parts)


def test_the_page_is_made_from_the_declarations():
    assert PAGE.read_text() == page(), "run python -m tests.test_variables"


def test_every_variable_says_what_it_is():
    for product in rooms.products().values():
        for v in product.variables.values():
            assert v.doc, f"{product.name}.{v.name}"
            assert v.unit or v.flags, f"{product.name}.{v.name}"


if __name__ == "__main__":
    PAGE.write_text(page())
