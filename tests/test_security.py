"""docs/security.md: catches the name of a test that does not exist, a missing requirement, and
rights that differ from those that `jobmon init` grants."""

import ast
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobmon.setup.users import ActionRights, OwnDatabaseNames, QueueRoles, UserKind

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/security.md").read_text()

# OWASP ASVS 5.0.0: for each section, its number of requirements, and which of them have level 3.
SECTIONS: dict[str, tuple[int, set[int]]] = {
    "1.1": (2, set()),
    "1.2": (10, {10}),
    "1.3": (12, {12}),
    "1.4": (3, set()),
    "1.5": (3, {3}),
    "2.1": (3, set()),
    "2.2": (3, set()),
    "2.3": (5, {5}),
    "2.4": (2, {2}),
    "3.1": (1, {1}),
    "3.2": (3, {3}),
    "3.3": (5, {5}),
    "3.4": (8, {7, 8}),
    "3.5": (8, {6, 7, 8}),
    "3.6": (1, {1}),
    "3.7": (5, {3, 4, 5}),
    "4.1": (5, {4, 5}),
    "4.2": (5, {2, 3, 4, 5}),
    "4.3": (2, set()),
    "4.4": (4, set()),
    "5.1": (1, set()),
    "5.2": (6, {4, 5, 6}),
    "5.3": (3, {3}),
    "5.4": (3, set()),
    "6.1": (3, set()),
    "6.2": (12, set()),
    "6.3": (8, {5, 6, 7, 8}),
    "6.4": (6, {5, 6}),
    "6.5": (8, {6, 7, 8}),
    "6.6": (4, {4}),
    "6.7": (2, {1, 2}),
    "6.8": (4, set()),
    "7.1": (3, set()),
    "7.2": (4, set()),
    "7.3": (2, set()),
    "7.4": (5, set()),
    "7.5": (3, {3}),
    "7.6": (2, set()),
    "8.1": (4, {3, 4}),
    "8.2": (4, {4}),
    "8.3": (3, {2, 3}),
    "8.4": (2, {2}),
    "9.1": (3, set()),
    "9.2": (4, set()),
    "10.1": (2, set()),
    "10.2": (3, {3}),
    "10.3": (5, {5}),
    "10.4": (16, {12, 13, 14, 15, 16}),
    "10.5": (5, set()),
    "10.6": (2, set()),
    "10.7": (3, set()),
    "11.1": (4, {3, 4}),
    "11.2": (5, {4, 5}),
    "11.3": (5, {4, 5}),
    "11.4": (4, set()),
    "11.5": (2, {2}),
    "11.6": (2, {2}),
    "11.7": (2, {1, 2}),
    "12.1": (5, {4, 5}),
    "12.2": (2, set()),
    "12.3": (5, {5}),
    "13.1": (4, {2, 3, 4}),
    "13.2": (6, {6}),
    "13.3": (4, {3, 4}),
    "13.4": (7, {6, 7}),
    "14.1": (2, set()),
    "14.2": (8, {5, 6, 7, 8}),
    "14.3": (3, set()),
    "15.1": (5, {4, 5}),
    "15.2": (5, {4, 5}),
    "15.3": (7, set()),
    "15.4": (4, {1, 2, 3, 4}),
    "16.1": (1, set()),
    "16.2": (5, set()),
    "16.3": (4, set()),
    "16.4": (3, set()),
    "16.5": (4, {4}),
    "17.1": (2, {2}),
    "17.2": (8, {5, 6, 7, 8}),
    "17.3": (2, set()),
}


def read_rows() -> list[list[str]]:
    """The cells of each row of the checklist, without the rows that name chapters."""
    table = TEXT[TEXT.index("| requirement |") :].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line]
    return [row for row in cells if not row[0].startswith("**")]


def list_requirements(cell: str) -> list[str]:
    """The requirements in a cell such as `1.3.1, 1.3.4`; an en dash makes a range."""
    requirements = []
    for part in cell.split(", "):
        first, _, last = part.partition("–")
        section, _, number = first.rpartition(".")
        numbers = range(int(number), int(last or number) + 1)
        requirements += [f"{section}.{number}" for number in numbers]
    return requirements


def test_every_named_test_exists() -> None:
    named_tests = re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)
    assert len(named_tests) > 100
    functions: dict[str, set[str]] = {}
    for file in {file for file, _ in named_tests}:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert [f"{file}::{name}" for file, name in named_tests if name not in functions[file]] == []


def test_every_named_file_exists() -> None:
    files = re.findall(r"`((?:jobmon|docs|bench|api)/[\w/.-]+|[\w.-]+\.(?:txt|yml|md))`", TEXT)
    assert len(files) > 15
    folders = (ROOT, ROOT / "tests")
    assert [file for file in files if not any((path / file).exists() for path in folders)] == []


def test_every_requirement_up_to_level_2_is_listed_once() -> None:
    expected = {
        f"{section}.{number}"
        for section, (count, level_3) in SECTIONS.items()
        for number in range(1, count + 1)
        if number not in level_3
    }
    listed = [number for row in read_rows() for number in list_requirements(row[0])]
    assert sorted(listed) == sorted(expected)


def test_each_requirement_has_a_status_and_names_its_proof_or_reason() -> None:
    for requirement, subject, status, explanation in read_rows():
        assert subject, requirement
        assert status in ("met", "part", "no", "yours", "none"), requirement
        if status in ("part", "no"):
            assert explanation, requirement
        if status == "met":
            # 4.1.2 is met because jobmon has no such redirect: no test or file proves that.
            assert "`" in explanation or requirement == "4.1.2", requirement


def list_rights(privileges: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """The actions of privileges, by database and collection."""
    return {
        (privilege["resource"]["db"], privilege["resource"]["collection"]): privilege["actions"]
        for privilege in privileges
    }


def test_the_roles_are_those_of_init() -> None:
    chapter = TEXT[: TEXT.index("Neither role")]
    table = re.findall(r"^\|(.*)\| (.*) \| (`.*`) \|$", chapter, re.MULTILINE)
    rows_by_role: dict[str, list[tuple[str, list[str]]]] = {}
    role = ""
    for role_cell, resource, actions in table:
        role = (re.findall(r"`([\w.]+)`:", role_cell) or [role])[0]
        rows_by_role.setdefault(role, []).append((resource, re.findall(r"`(\w+)`", actions)))
    names = ["jobs", "job_attempts"]
    created = QueueRoles("shop", names, OwnDatabaseNames("own", "state")).privileges
    assert set(rows_by_role) == set(created)
    for role, privileges in created.items():
        documented: dict[tuple[str, str], list[str]] = {}
        for resource, actions in rows_by_role[role]:
            if resource == "the jobs and the attempts":
                documented |= {("shop", name): actions for name in names}
            elif resource == "`JOBMON_ROLLUP_DB`":
                documented["own", ""] = actions
            else:
                assert resource.startswith("in `JOBMON_STATE_DB`: ")
                collections = re.findall("`([a-z_]+)`", resource)
                documented |= {("state", name): actions for name in collections}
        assert list_rights(privileges) == documented


def test_the_rights_for_actions_are_those_of_init() -> None:
    begin = TEXT.index("### What actions change")
    section = TEXT[begin : TEXT.index("With the profile of another library", begin)]
    rows = re.findall(r"^\|(.*)\| (.*) \| (`.*) \|$", section, re.MULTILINE)
    documented = [re.findall(r"`(\w+)`", actions) for _, _, actions in rows]
    names = ["jobs", "job_attempts"]
    roles = {
        may_delete: QueueRoles(
            "shop",
            names,
            OwnDatabaseNames("own", "state"),
            ActionRights(collections=names, may_delete=may_delete),
        )
        for may_delete in (False, True)
    }
    actor, deleting_actor = (
        {
            privilege["resource"]["collection"]: privilege["actions"]
            for privilege in roles[may_delete].privileges[roles[may_delete].name(UserKind.ACTOR)]
        }
        for may_delete in (False, True)
    )
    no_actions = replace(roles[False], actions=None)
    assert no_actions.name(UserKind.ACTOR) not in no_actions.privileges
    reader_records, paused_types, jobs, controls, decisions, progress, leases = documented
    for kind, records in (
        (UserKind.READER, ("action_decisions", "notice_mutes")),
        (UserKind.COLLECTOR, ()),
    ):
        role = no_actions.name(kind)
        without = list_rights(no_actions.privileges[role])
        added = {
            resource: [action for action in actions if action not in without.get(resource, ())]
            for resource, actions in list_rights(roles[False].privileges[role]).items()
            if actions != without.get(resource)
        }
        assert added == {
            ("shop", "job_controls"): paused_types,
            **{("state", name): reader_records for name in records},
        }
    assert actor["jobs"] == actor["job_attempts"] == ["find", "update"]
    assert deleting_actor["jobs"] == deleting_actor["job_attempts"] == ["find", "update", "remove"]
    assert jobs == ["find", "update", "JOBMON_ACTIONS_ALLOW_DELETE", "remove"]
    assert (actor["job_controls"], actor["action_decisions"]) == (controls, decisions)
    assert actor["action_progress"] == actor["action_outcomes"] == progress
    assert actor["action_leases"] == leases
    assert len(actor) == 7  # no rights on other collections
