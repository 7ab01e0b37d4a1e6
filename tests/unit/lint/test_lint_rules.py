"""Each rule finds its flaw, passes over what is next to it, and its mend mends."""

import pytest

from lint_cases import CASES, Case
from lint_sets import NOW, findings, flaws, manifests, mended, pool, queue, task
from taskdist.lint import RULES, Severity, review

# Found while reading, before there is a set.
ELSEWHERE = {"not-yaml"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_finds_the_flaw_and_names_the_field(case: Case) -> None:
    found = findings(case.rule, *case.bad)
    assert case.path in {each.path for each in found}
    first = next(each for each in found if each.path == case.path)
    assert case.words in first.message
    assert first.mend
    assert bool(first.change) == case.changes
    assert first.source.startswith("set.yaml:")
    if case.severity:
        assert first.severity == case.severity


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_passes_over_what_is_sound(case: Case) -> None:
    assert findings(case.rule, *case.good) == []


@pytest.mark.parametrize("case", [case for case in CASES if case.changes], ids=lambda case: case.id)
def test_the_mend_mends(case: Case) -> None:
    objects = case.bad
    found = flaws(case.rule, *objects)
    # One mend may leave the next flaw of a list: as many steps as there are flaws do.
    for _ in range(len(found)):
        if not (left := flaws(case.rule, *objects)):
            break
        objects = mended(left[0], objects)
    assert findings(case.rule, *objects) == []
    # And nothing that the API server would refuse comes of it.
    refused = {"unknown-field", "invalid-value"}
    assert [each for each in review(manifests(*objects), NOW) if each.rule in refused] == []


def test_each_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} | ELSEWHERE == {rule.id for rule in RULES}
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_each_rule_explains_itself(rule: object) -> None:
    from taskdist.lint import Rule

    assert isinstance(rule, Rule)
    assert rule.title
    assert len(rule.explanation) > 40
    assert rule.explanation.endswith(".")


def test_ids_are_unique() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)


def test_what_the_other_cases_start_from_is_sound() -> None:
    assert review(manifests(queue(), pool(), task()), NOW) == []


def test_the_worst_comes_first_and_what_is_disabled_not_at_all() -> None:
    objects = manifests(queue(ttlSecondsAfterFinished=0), pool("idle"), pool(), task(slots=9))
    found = review(objects, NOW)
    assert [each.severity for each in found] == sorted((each.severity for each in found), key=lambda s: s.rank)
    assert found[0].severity is Severity.ERROR
    assert {each.rule for each in found} >= {"larger-than-any-agent", "pool-unused", "ended-gone-at-once"}
    left = review(objects, NOW, disabled={"pool-unused"})
    assert [each for each in found if each.rule != "pool-unused"] == left


def test_an_object_that_the_schema_refuses_is_there_all_the_same() -> None:
    found = review(manifests(queue(weight=0), pool(), task()), NOW)
    assert [each.rule for each in found if each.severity is Severity.ERROR] == ["invalid-value"]


def test_namespaces_are_apart() -> None:
    mine = {**task(), "metadata": {"name": "t", "namespace": "a"}}
    other = {**queue(), "metadata": {"name": "q", "namespace": "b"}}
    assert [each.message for each in findings("queue-not-found", mine, other)] != []
    # One that is said for all that name none joins them.
    assert findings("queue-not-found", mine, queue(), namespace="a") == []


def test_in_a_whole_namespace_what_is_missing_is_missing() -> None:
    assert findings("queue-not-found", task())[0].severity is Severity.WARNING
    found = findings("queue-not-found", task(), whole=True)[0]
    assert found.severity is Severity.ERROR
    assert "cluster" not in found.message
