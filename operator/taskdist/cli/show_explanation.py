"""The output of `explain`, in words and local time. Nothing is asked or found out here."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from taskdist.api.view import Items
from taskdist.cli import show
from taskdist.client.explained import outside_line
from taskdist.client.states import attempt_line
from taskdist.common import times
from taskdist.protocol.arrays import counts


def print_story(story: dict[str, Any], now: float) -> None:
    """Print what `explain` found of a Task, for people; `now` is a Unix time."""
    pairs: list[tuple[str, str]] = []
    for key, value in story.items():
        match key:
            case "attempts" | "waiting" | "position_exact" | "rejections" | "what_if" | "errors":
                continue
            case "items":
                pairs.append(("Items", counts.sentence(Items.model_validate(value))))
            case "waits":
                pairs += _waits(value, now)
            case "since":
                pairs.append(("Waits", f"since {_local(value)}, for {times.age(value, times.now())}"))
            case "position":
                about = "" if story["position_exact"] else "about "
                pairs.append(("Position", f"{about}{value} of {story['waiting']} that wait for the same agents"))
            case "operator":
                pairs.append(("Unknown", value.get("unknown", "")))
            case "route":
                pairs.append(("Route", _way(value)))
            case "outside":
                pairs.append(("Outside", outside_line(value, times.now())))
            case "energy_wh":
                pairs.append(("Energy", f"{value:g} Wh"))
            case "expected_start":
                pairs.append(("Expected", _expected(value, now)))
            case _:
                pairs.append((key.capitalize(), str(value)))
    show.fields(pairs)
    if "rejections" in story:
        print("Agents that may not run it:")
        show.table(("AGENTS", "WHY"), [(str(each["agents"]), each["why"]) for each in story["rejections"]])
    if "what_if" in story:
        print("What if:")
        show.table(
            ("", "STARTS"),
            [
                ("as it is", _expected_share(story["what_if"]["as_it_is"], now)),
                ("changed", _expected_share(story["what_if"]["changed"], now)),
            ],
            head=False,
        )
    if "errors" in story:
        print("First items that failed:")
        show.table(
            ("ITEM", "REASON", "MESSAGE"),
            [(str(each.get("index")), str(each.get("reason")), str(each.get("message"))) for each in story["errors"]],
        )
    for each in story.get("attempts", ()):
        print(f"  {attempt_line(each)}")


def _waits(story: dict[str, Any], now: float) -> list[tuple[str, str]]:
    """Why the first chunk of an array waits, while others run."""
    pairs = [("Next waits", f"{story['reason']}: {story['message']}"), ("Unblock", story["unblock"])]
    pairs.append(("Command", story["command"]))
    if "position" in story:
        about = "" if story["position_exact"] else "about "
        pairs.append(("Position", f"{about}{story['position']} of {story['waiting']} that wait for the same agents"))
        pairs.append(("Expected", _expected(story["expected_start"], now)))
    pairs += [("Not by", f"{each['agents']} agents: {each['why']}") for each in story.get("rejections", ())]
    return pairs


def print_queue(story: dict[str, Any]) -> None:
    """Print how a queue stands, for people."""
    held = story.get("bottleneck") or {}
    pairs = [
        ("Queue", story["queue"]),
        ("Pools", ", ".join(story["pools"])),
        ("Paused", "yes" if story["paused"] else ""),
        ("Accepting", "yes" if story["accepting"] else f"no: {story['why_not']}".rstrip(": ")),
        ("Waiting", f"{story['waiting']}{_by_level(story.get('levels', ()))}"),
        ("Outside", outside_line(story["outside"], times.now()) if "outside" in story else ""),
        ("Leased", str(story["leased"])),
        ("Letters", str(story["dead_letters"]) if story["dead_letters"] else ""),
        ("Held up", f"{held['reason']}: {held['message']}" if held else ""),
        ("Unblock", held.get("unblock", "")),
        ("Command", held.get("command", "")),
    ]
    show.fields(pairs)
    if "limits" in story:
        print("What is left of its limits:")
        rows = [(each["name"], f"{each['left']:g}", str(each["capacity"]), _back(each)) for each in story["limits"]]
        show.table(("LIMIT", "LEFT", "OF", "COMES BACK"), rows)


def _by_level(levels: Iterable[dict[str, Any]]) -> str:
    told = ", ".join(f"{each['waiting']} {each['level']}" for each in levels if each["waiting"])
    return f" ({told})" if told else ""


def _back(limit: dict[str, Any]) -> str:
    return f"{limit['per_second']:g} a second" if limit["per_second"] else "as attempts end"


def _way(route: dict[str, Any]) -> str:
    """By which way it came to its agent, in one line."""
    rule = f"{route['rule']}, step {route['step']}: " if route.get("rule") else ""
    picked = f" by {route['strategy']}, score {route.get('score') or 0:g}" if route.get("strategy") else ""
    return f"{rule}pool {route.get('pool', '')}{picked}"


def _expected(course: dict[str, str] | str, now: float) -> str:
    """In words and local time: when, and between which times four of five such Tasks start."""
    if isinstance(course, str):
        return "unknown: nothing tells yet how long Tasks take there, or no agent is ready"
    at, low, high = (datetime.fromisoformat(course[key]).timestamp() for key in ("at", "earliest", "latest"))
    if high <= now + 1:
        return "at once"
    spans = " to ".join(times.span(max(0.0, each - now)) for each in (low, high))
    return f"in about {times.span(max(0.0, at - now))}, at {_local(course['at'])}; four times in five in {spans}"


def _expected_share(played: dict[str, Any], now: float) -> str:
    if not played["starts"]:
        return "not at all"
    share = "" if played["starts"] == 1 else f" (in {played['starts']:.0%} of the runs it starts at all)"
    return _expected(played["expected_start"], now) + share


def _local(timestamp: str) -> str:
    """A time as the clock on the wall shows it; with the date, if that is not today's."""
    then, today = datetime.fromisoformat(timestamp).astimezone(), times.now().astimezone()
    return then.strftime("%H:%M:%S" if then.date() == today.date() else "%Y-%m-%d %H:%M:%S")
