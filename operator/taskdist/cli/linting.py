"""`taskdist lint`: manifests, or what is in the cluster, reviewed as an expert would.

Owns where the manifests come from and how findings look. What is a flaw is the review's to say.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskdist.cli.cluster import Target
from taskdist.cli.options import Context, Kubeconfig, Namespace, examples
from taskdist.cli.run import FAILED, OK, USAGE, complain, note, run

if TYPE_CHECKING:
    from taskdist.cli.cluster import Cluster
    from taskdist.lint import Finding, Manifest

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")
PARENTS_LOOKED_FOR = 200
"""How many Tasks that others depend on are asked for by name: having ended, they are in no list of those that wait."""
ALIKE = 3
"""Of findings that differ in nothing but the object, so many objects are named."""


def add(app: typer.Typer, program: str) -> None:
    """Add the command."""

    @app.command(
        rich_help_panel="Review",
        epilog=examples(
            ("before you apply it: files, folders", f"{program} lint manifests/samples"),
            ("what a template makes", f"helm template . | {program} lint -"),
            ("what is in the cluster", f"{program} lint --cluster -n team-a"),
            ("what it would be with this file", f"{program} lint new-queue.yaml --cluster -n team-a"),
            ("in CI: fail on warnings too, but for one rule", f"{program} lint k8s/ --strict --disable pool-unused"),
            ("what it looks for, and why", f"{program} lint --rules"),
        ),
    )
    def lint(
        ctx: typer.Context,
        paths: Annotated[
            list[str] | None,
            typer.Argument(metavar="[PATH…]", help="Files, folders, or - for standard input.", show_default=False),
        ] = None,
        cluster: Annotated[
            bool, typer.Option("--cluster", help="Review the objects of the namespace, with the files over them.")
        ] = False,
        strict: Annotated[
            bool, typer.Option("--strict", help="Exit with 1 on warnings too, not on errors only.")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
        disable: Annotated[
            list[str] | None,
            typer.Option(
                "--disable", metavar="RULE", help="Do not ask this rule. May be repeated.", show_default=False
            ),
        ] = None,
        rules: Annotated[bool, typer.Option("--rules", help="List all rules with what they find and why.")] = False,
        namespace: Namespace = None,
        context: Context = None,
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """Review manifests as an expert would: what cannot work, what has no effect, what will hurt later.

        Each finding names the object, the field, what is wrong, and the mend to paste.

        An error is refused by the API server, or can never work. A warning does not do what it says. A hint is worth
        knowing. The exit code is 1 if there is an error.

        Give all that belongs together in one call: a Task is judged by its queue, a queue by its pools.
        """
        from taskdist.lint import RULES

        unknown = sorted(set(disable or ()) - {rule.id for rule in RULES})
        if unknown:
            complain(f"there is no rule {', '.join(unknown)}; see: {program} lint --rules")
            raise typer.Exit(USAGE)
        if rules:
            _explain(as_json)
            return
        if not paths and not cluster:
            complain(f"say what to review: files, folders, - or --cluster. See: {program} lint --help")
            raise typer.Exit(USAGE)
        off = frozenset(disable or ())
        if not cluster:
            found, broken = _read(paths or [], namespace or "")
            raise typer.Exit(_tell(found, broken, off, whole=False, strict=strict, as_json=as_json))

        async def live(it: "Cluster") -> int:
            there = await _listed(it)
            given, broken = _read(paths or [], it.namespace)
            there += await _parents(it, [*there, *given])
            return _tell(_merged(there, given), broken, off, whole=True, strict=strict, as_json=as_json)

        run(ctx, Target(namespace, context, kubeconfig), live)


# What is reviewed.


def _read(paths: Sequence[str], namespace: str) -> "tuple[list[Manifest], list[Finding]]":
    """All manifests, and what could not be read."""
    from taskdist.lint import Unreadable, read, unreadable

    found: list[Manifest] = []
    broken: list[Finding] = []
    templates = 0
    for source, text, named in _texts(paths):
        try:
            found += read(text, source, namespace)
        except Unreadable as error:
            ours = "taskdist.dev/" in text
            if named or (ours and "{{" not in text):
                broken.append(unreadable(source, str(error), error.line))
            elif ours:
                templates += 1
    if templates:
        note(f"{templates} template{'s' * (templates != 1)} passed over: review what they make, with helm template")
    return found, broken


def _texts(paths: Sequence[str]) -> Iterable[tuple[str, str, bool]]:
    """Source, text, and whether the file itself was named."""
    for path in paths:
        if path == STDIN:
            text = _decoded(sys.stdin.buffer.read(), "standard input")
            if not text.strip():
                complain("standard input is empty: did the command before it fail? Nothing was reviewed")
                raise typer.Exit(USAGE)
            yield "stdin", text, True
            continue
        place = Path(path)
        if not place.exists():
            complain(f"{path}: no such file or folder")
            raise typer.Exit(USAGE)
        files = _manifests_below(place) if place.is_dir() else [place]
        for file in files:
            try:
                content = file.read_bytes()
            except OSError as error:
                complain(f"{file} cannot be read: {error.strerror}")
                raise typer.Exit(USAGE) from None
            yield str(file), _decoded(content, str(file)), file == place


def _decoded(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        complain(f"{source} cannot be read: line {line} is not UTF-8 text")
        raise typer.Exit(USAGE) from None


def _manifests_below(folder: Path) -> list[Path]:
    """Without what is hidden: caches and checkouts of others."""
    files = (each for each in folder.rglob("*") if each.suffix in SUFFIXES and each.is_file())
    return sorted(each for each in files if not any(part.startswith(".") for part in each.relative_to(folder).parts))


async def _listed(cluster: "Cluster") -> "list[Manifest]":
    """What there is in the namespace, without Tasks that have ended."""
    from taskdist.api import Phase
    from taskdist.kube import AGENTPOOLS, TASKQUEUES, TASKS, TASKSINKS, TASKSOURCES, ApiError, Resource
    from taskdist.lint import live

    version = TASKS.api_version
    found = [live(each, "AgentPool", version) for each in (await cluster.list(AGENTPOOLS)).items]
    found += [live(each, "TaskQueue", version) for each in (await cluster.list(TASKQUEUES)).items]
    for kind, resource in (("TaskSource", TASKSOURCES), ("TaskSink", TASKSINKS)):
        try:
            found += [live(each, kind, version) for each in (await cluster.list(resource)).items]
        except ApiError as error:  # of an older release, or not to be read by whoever asks
            note(f"{kind}s are left out: {error.message or error}")
    for phase in (Phase.PENDING, Phase.ASSIGNED):
        found += [
            live(each, "Task", version) for each in (await cluster.list(TASKS, fields=f"status.phase={phase}")).items
        ]
    try:
        quotas = (await cluster.list(Resource("", "v1", "resourcequotas"))).items
    except ApiError as error:
        note(f"ResourceQuotas are left out: {error.message or error}")
        quotas = []
    found += [live(each, "ResourceQuota", "v1") for each in quotas]
    # A Task that was given out between two lists is in both.
    return list({(each.kind, each.name): each for each in found}.values())


async def _parents(cluster: "Cluster", manifests: "Sequence[Manifest]") -> "list[Manifest]":
    """Tasks that others depend on and that are in no list: those that have ended."""
    from taskdist.kube import TASKS, ApiError
    from taskdist.lint import live

    tasks = [each for each in manifests if each.kind == "Task" and each.namespace == cluster.namespace]
    known = {each.name for each in tasks}
    wanted = {name for each in tasks for name in _depends_on(each.body)} - known
    found = []
    for name in sorted(wanted)[:PARENTS_LOOKED_FOR]:
        try:
            found.append(live(await cluster.get(TASKS, name), "Task", TASKS.api_version))
        except ApiError as error:
            if not error.is_not_found:
                raise
    return found


def _depends_on(body: dict[str, Any]) -> list[str]:
    spec = body.get("spec")
    parents = spec.get("dependsOn") if isinstance(spec, dict) else None
    return [str(each.get("name")) for each in parents if isinstance(each, dict)] if isinstance(parents, list) else []


def _merged(there: "list[Manifest]", given: "list[Manifest]") -> "list[Manifest]":
    """Return what would be there with the given manifests applied."""
    replaced = {(each.kind, each.namespace, each.name) for each in given}
    return [*given, *(each for each in there if (each.kind, each.namespace, each.name) not in replaced)]


# What is told.


def _tell(
    manifests: "list[Manifest]",
    broken: "list[Finding]",
    off: frozenset[str],
    *,
    whole: bool,
    strict: bool,
    as_json: bool,
) -> int:
    from taskdist.lint import Severity, review

    found = [
        *(each for each in broken if each.rule not in off),
        *review(manifests, time.time(), whole=whole, disabled=off),
    ]
    counted = {severity: sum(each.severity is severity for each in found) for severity in Severity}
    if as_json:
        words = {f"{severity.value}s": count for severity, count in counted.items()}
        findings = [each.to_json() for each in found]
        print(json.dumps({"objects": len(manifests), **words, "findings": findings}, indent=2, ensure_ascii=False))
    else:
        _print(found)
        told = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counted.items() if count)
        note(f"{told or 'nothing to find fault with'} in {len(manifests)} object{'s' * (len(manifests) != 1)}")
    worst = counted[Severity.ERROR] + (counted[Severity.WARNING] if strict else 0)
    return FAILED if worst else OK


_COLOURS = {"error": "red", "warning": "yellow", "hint": "cyan"}


def _print(found: "Sequence[Finding]") -> None:
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for each in found:
        kind = each.object.partition(" ")[0]
        groups.setdefault((each.rule, each.severity, kind, each.path, each.message, each.mend, each.change), []).append(
            each
        )
    for group in groups.values():
        first = group[0]
        where = f"{first.source}: " if first.source else ""
        severity = typer.style(first.severity.value, fg=_COLOURS[first.severity.value], bold=True)
        typer.echo(f"{where}{severity} {first.rule}")
        typer.echo(f"  {first.object}" + (f" · {first.path}" if first.path else "") + _others(group[1:]))
        typer.echo(f"  {first.message}")
        typer.echo(
            f"  {typer.style('mend:', bold=True)} {first.mend}" + (f" In {first.mend_on}:" if first.mend_on else "")
        )
        for line in (first.command or first.change).splitlines():
            typer.echo(f"      {line}")
        typer.echo()


def _others(group: "Sequence[Finding]") -> str:
    if not group:
        return ""
    names = ", ".join(each.object.partition(" ")[2] for each in group[:ALIKE])
    more = f" and {len(group) - ALIKE} more" if len(group) > ALIKE else ""
    return f", and so {names}{more}"


def _explain(as_json: bool) -> None:
    from taskdist.lint import RULES

    if as_json:
        rules = [
            {"rule": each.id, "severity": each.severity.value, "title": each.title, "why": each.explanation}
            for each in RULES
        ]
        print(json.dumps(rules, indent=2, ensure_ascii=False))
        return
    for each in RULES:
        severity = typer.style(each.severity.value, fg=_COLOURS[each.severity.value], bold=True)
        typer.echo(f"{typer.style(each.id, bold=True)} ({severity}): {each.title}")
        typer.echo(f"    {each.explanation}")
