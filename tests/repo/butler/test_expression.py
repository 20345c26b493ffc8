"""Terms and names of a Butler expression."""

import pytest

from camcal_dask.repo.butler import expression


@pytest.mark.parametrize(
    ("where", "terms"),
    [
        ("", []),
        ("a=1", ["a=1"]),
        ("a=1 AND b='x AND y' and (c=1 OR d=2 AND e=3)", ["a=1", "b='x AND y'", "(c=1 OR d=2 AND e=3)"]),
        ("(a=1 AND b IN (1, 2)) AND c=3", ["a=1", "b IN (1, 2)", "c=3"]),
        ("(a=1) AND (b=2)", ["(a=1)", "(b=2)"]),
        ("(a=1 OR b=2 AND c=3) AND d=4", ["(a=1 OR b=2 AND c=3)", "d=4"]),
        ("a=1 OR b=2 AND c=3", ["a=1 OR b=2 AND c=3"]),
    ],
)
def test_terms_of_an_expression(where, terms):
    assert expression.terms(where) == terms


def test_names_in_an_expression():
    assert expression.mentions("detector IN (1)", "detector")
    assert expression.mentions("a=1 AND detector.purpose='SCIENCE'", "detector")
    assert not expression.mentions("exposure.target_name='detector'", "detector")
    assert expression.instrument_of("instrument = 'LATISS' AND a=1") == "LATISS"
