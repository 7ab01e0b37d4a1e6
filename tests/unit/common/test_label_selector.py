"""Label selectors: what they mean, and that a mistake is named and cheap."""

import time

import pytest

from taskdist.common.label_selector import MOST_REQUIREMENTS, SelectorError, meets, parse

LABELS = {"team": "red", "tier": "web", "example.com/kept": ""}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        pytest.param("", True, id="nothing asked"),
        pytest.param("team=red", True, id="equal"),
        pytest.param("team==red,tier=web", True, id="both"),
        pytest.param("team = red , tier != db", True, id="blanks"),
        pytest.param("team=blue", False, id="another value"),
        pytest.param("team!=red", False, id="not equal"),
        pytest.param("gone!=red", True, id="not equal holds where there is none"),
        pytest.param("tier in (web,db)", True, id="one of"),
        pytest.param("tier in(web)", True, id="no blank before the list"),
        pytest.param("tier notin (web, db)", False, id="none of"),
        pytest.param("tier notin (db),team in (red,blue)", True, id="two lists"),
        pytest.param("gone notin (web)", True, id="none of holds where there is none"),
        pytest.param("gone in ()", False, id="one of nothing but the empty value"),
        pytest.param("example.com/kept", True, id="there"),
        pytest.param("!example.com/kept", False, id="not there"),
        pytest.param("! gone,team", True, id="not there, and there"),
        pytest.param("example.com/kept=", True, id="empty value"),
        pytest.param("gone=", False, id="an absent label has no empty value"),
    ],
)
def test_label_selectors_mean_what_kubectl_means(selector: str, matches: bool) -> None:
    assert meets(LABELS, parse(selector)) is matches


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        pytest.param("a=b=c", "'a=b=c'", id="two equals"),
        pytest.param("=b", "'=b'", id="no key"),
        pytest.param("a in x", "'a in x'", id="no parentheses"),
        pytest.param("a in (b c)", "'a in (b c)'", id="a blank in a value"),
        pytest.param("a in (b", r"'a in \(b'", id="an open list"),
        pytest.param("a=b,", "at ''", id="nothing after the comma"),
        pytest.param(",,", "at ''", id="commas only"),
        pytest.param("a>1", "'a>1'", id="a size"),
        pytest.param("a=-b", "'a=-b'", id="no value of a label"),
        pytest.param("a," * MOST_REQUIREMENTS + "a", "more than 32", id="too many parts"),
    ],
)
def test_mistakes_are_named(selector: str, says: str) -> None:
    with pytest.raises(SelectorError) as refused:
        parse(selector)
    assert says.replace("\\", "") in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 8000, id="one key"),
        pytest.param("(" * 8000, id="parentheses only"),
        pytest.param("a in (" * 1500, id="list in list"),
        pytest.param("a in (" + "b," * 4000, id="an open list"),
        pytest.param(" " * 8000 + "=", id="blanks before"),
        pytest.param("a in (" + " " * 8000 + "!", id="blanks in an open list"),
        pytest.param("a in (" + " " * 8000 + "!)", id="blanks in a list"),
        pytest.param("a in (" + " ," * 4000 + "!)", id="blanks between commas"),
    ],
)
def test_no_text_is_long_to_read(text: str) -> None:
    began = time.process_time()
    with pytest.raises(SelectorError):
        parse(text)
    assert time.process_time() - began < 0.5, "milliseconds on a quiet machine"
