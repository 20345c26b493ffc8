from camcal_dask.report.pages.markup import Markup, link, number, table, tag


def test_everything_is_escaped_but_markup():
    found = tag("p", "<script>", ["&", Markup("<b>x</b>")], None, title='"<', class_="c", hidden=True, id=None)
    assert found == '<p title="&quot;&lt;" class="c" hidden>&lt;script&gt;&amp;<b>x</b></p>'


def test_links_quote_every_part_of_the_path():
    assert link("t", "..", "a/b c", fragment="x y") == '<a href="../a%2Fb%20c#x%20y">t</a>'


def test_table_cells():
    found = table(("a", tag("th", "b")), [("<", tag("td", 1, class_="num"))])
    assert '<td>&lt;</td><td class="num">1</td>' in found
    assert "<th>a</th><th>b</th>" in found


def test_numbers():
    assert number(float("nan")) == "–"
    assert number(0.123456) == "0.1235"
    assert number(-79_753.2) == "-79753"
    assert number(3.2e9) == "3.2e+09"
