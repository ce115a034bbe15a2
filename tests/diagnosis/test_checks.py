"""Every check on made-up facts: what it finds, how bad it is, what it advises; and that it is silent where nothing is wrong."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.cli import pages
from replaystore.diagnosis.examination import CHECKS, examine
from replaystore.diagnosis.facts import SEVERITIES, CertificateFacts, Facts, FileFacts, TableFacts
from replaystore.server.observing.surroundings import Disk

from .conftest import CONFIG, GIB, NOW, folder, found, one, served, stats, status, table

DAY = 86_400.0


@pytest.mark.parametrize(
    "facts", [served(), folder(), served(status=None), Facts("x", NOW, "1")], ids=["server", "folder", "old", "nothing"]
)
def test_where_nothing_is_wrong_nothing_is_found(facts: Facts) -> None:
    assert [finding for finding in examine(facts) if finding.check != "answers"] == []


def test_every_check_has_a_section_and_the_page_is_made_of_them() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/DOCTOR.md").read_text()
    assert pages.PAGES["DOCTOR.md"]() == page, "run `make docs`"
    for check in CHECKS:
        title, _, body = inspect.cleandoc(check.__doc__ or "").partition("\n\n")
        assert title.endswith(".")
        assert len(body) > 100, check.__name__
        assert f"## `{check.__name__}`: " in page


def test_the_worst_comes_first() -> None:
    facts = served(table(problem="it is damaged"), of={"metrics": ""}, token_file=FileFacts("/t", 0o640), socket=FileFacts("/s", 0o777))
    severities = [finding.severity for finding in examine(facts)]
    assert severities == sorted(severities, key=SEVERITIES.index)
    assert set(severities) == set(SEVERITIES)
    assert all(finding.advice and finding.found for finding in examine(facts))


# -- flow


def test_a_server_that_does_not_answer() -> None:
    severity, text, _ = one(Facts("h:1", NOW, "1", served=True, problem="no connection to h:1 (refused): is it running?"), "answers")
    assert (severity, text) == ("error", "no connection to h:1 (refused): is it running?")


def test_a_server_that_is_too_old_to_say() -> None:
    severity, text, _ = one(served(status=None, server_version="0.0.9"), "answers")
    assert (severity, "version 0.0.9" in text) == ("note", True)


def test_a_folder_that_is_served() -> None:
    severity, text, advice = one(folder(of={"live": True}), "answers")
    assert (severity, "has the store open" in text, "HOST:PORT" in advice) == ("note", True, True)


@pytest.mark.parametrize(("side", "acts"), [("insert", "learners"), ("sample", "actors")])
def test_callers_who_are_held_back(side: str, acts: str) -> None:
    of = {f"blocked_{side}": "table 't': MinSize holds back", f"waiting_{side}s": 3}
    held = table(of=of, before=stats(**of))
    severity, text, advice = one(served(held), "limiter")
    assert severity == "warning"
    assert text == f"3 {'appends' if side == 'insert' else 'samples'} wait: MinSize holds back"
    assert acts in advice
    assert found(served(dataclasses.replace(held, before=stats())), "limiter") == []  # it waited at one look only
    assert found(served(table(of={f"blocked_{side}": "it would wait"})), "limiter") == []  # nobody does


def test_both_sides_wait() -> None:
    of = {"blocked_insert": "a", "waiting_inserts": 1, "blocked_sample": "b", "waiting_samples": 2}
    findings = found(served(table(of=of, before=stats(**of))), "limiter")
    assert [(finding.severity, finding.table) for finding in findings] == [("error", "t"), ("warning", "t"), ("warning", "t")]
    assert "wait for each other" in findings[0].found


def test_actors_that_stopped() -> None:
    severity, text, _ = one(served(table(of={"waiting_samples": 2, "newest_time": NOW - 720})), "absent")
    assert (severity, text) == ("warning", "2 samples wait and no row came for 12 min 0 s; 3 writers are connected to the server")
    never = table(of={"waiting_samples": 1, "newest_time": None}, insert_times=np.zeros(0))
    assert "no row ever came" in one(served(never), "absent")[1]
    assert found(served(table(of={"waiting_samples": 2, "newest_time": NOW - 3})), "absent") == []


def test_a_learner_that_never_came() -> None:
    idle = table(of={"inserted_steps": 9_990}, before=stats(inserted_steps=9_000))
    severity, text, _ = one(served(idle, of={"sample_streams": 0}), "absent")
    assert (severity, text) == ("note", "990 steps came in 1.00 s, nothing was sampled, and no sampler is connected")
    assert found(served(idle), "absent") == []  # one is connected
    stopped = dataclasses.replace(idle, idle_s=300.0)
    assert one(served(stopped), "absent")[:2] == ("warning", "steps come in, and no batch was drawn for 5 min 0 s")
    assert found(served(dataclasses.replace(idle, idle_s=3.0)), "absent") == []
    held = table(of={"inserted_steps": 9_990, "waiting_inserts": 1}, before=stats(inserted_steps=9_000))
    assert one(served(held, of={"sample_streams": 0}), "absent")[0] == "warning"


@pytest.mark.parametrize(("lag_s", "severity"), [(0.3, None), (10.0, "warning"), (100.0, "error")])
def test_rows_that_wait_for_the_disk(lag_s: float, severity: str | None) -> None:
    findings = found(served(table(of={"durable_step": 9_000}, commit_lag_s=lag_s)), "commit_lag")
    assert [finding.severity for finding in findings] == ([] if severity is None else [severity])
    if findings:
        assert findings[0].found.startswith("1,000 rows are not on stable storage, the oldest for ")
    assert found(served(table(commit_lag_s=100.0), of={"commit_interval_s": 60.0}), "commit_lag") == []  # as it was asked for


def test_priorities_that_nobody_sets() -> None:
    equal = table(masses={"default": np.full(9_000, 1.0, np.float32)})
    severity, text, advice = one(served(equal), "priorities")
    assert (severity, text) == ("warning", "80,000 items were drawn, and the priorities of all 9,000 steps are equal")
    assert "update_priorities('t'" in advice
    assert found(served(dataclasses.replace(equal, stats=stats(sampled_items=0))), "priorities") == []
    assert found(served(dataclasses.replace(equal, stats=stats(anchors=50))), "priorities") == []
    older = dataclasses.replace(equal, stats=stats(total_priority={"default": 4_000.0}))  # of rows before the newest they are not
    assert found(served(older), "priorities") == []


def test_priorities_that_are_zero() -> None:
    config = rs.TableConfig(CONFIG.columns, selector={"td": rs.Prioritized(alpha=0.5, epsilon=0.01)})
    zeros = table(config, {"total_priority": {"td": 900.0}}, masses={"td": np.full(9_000, 0.1, np.float32)})
    assert "of selector 'td' of the newest 9,000 steps are all zero" in one(served(zeros), "priorities")[1]


def test_one_step_with_nearly_all_of_the_mass() -> None:
    masses = np.full(9_000, 1e-3, np.float32)
    masses[7] = 91.0
    heavy = table(of={"total_priority": {"default": 100.0}}, masses={"default": masses})
    severity, text, _ = one(served(heavy), "priorities")
    assert (severity, text) == ("warning", "one step has 91 % of the priorities of 9,000 steps: it fills the batches")


def test_priorities_that_play_no_part() -> None:
    masses = {"default": np.ones(9_000, np.float32)}
    for selector in (rs.Prioritized(alpha=0.0), rs.Uniform(), rs.RankPrioritized()):
        config = rs.TableConfig(CONFIG.columns, selector=selector, retention=rs.Retention(max_steps=100_000))
        assert found(served(table(config, masses=masses)), "priorities") == []


def test_columns_that_nobody_writes() -> None:
    severity, text, _ = one(served(table(zero_columns=("info/mask", "action"))), "columns")
    assert (severity, text) == ("note", "zero in all of the newest 250 steps: info/mask, action")
    assert found(served(table(zero_columns=("action",), looked_rows=20)), "columns") == []


def test_columns_that_hold_no_numbers() -> None:
    severity, text, advice = one(served(table(odd_columns=("reward",))), "columns")
    assert (severity, text) == ("warning", "NaN or infinity among the newest 250 steps: reward")
    assert "replaystore head 127.0.0.1:7777 t" in advice


def test_clocks() -> None:
    ahead = served(of={"time": NOW + 100})
    assert one(ahead, "clock")[:2] == ("warning", "the server's clock is 1 min 40 s ahead of the one here")
    assert "30 s behind" in one(served(table(of={"newest_time": NOW - 99}), of={"time": NOW - 30}), "clock")[1]
    future = served(table(of={"newest_time": NOW + 7200}))
    assert one(future, "clock")[:2] == ("warning", "its newest row was inserted 2 h 0 min from now")
    assert found(served(table(of={"newest_time": NOW + 1}), of={"time": NOW + 2}), "clock") == []


# -- room


@pytest.mark.parametrize(
    ("free", "total", "severity"),
    [(500 * GIB, 1000 * GIB, None), (40 * GIB, 1000 * GIB, "warning"), (5 * GIB, 1000 * GIB, "error"), (GIB // 2, 2 * GIB, "warning")],
)
def test_a_disk_that_is_nearly_full(free: int, total: int, severity: str | None) -> None:
    findings = found(served(disk=Disk(free, total, "ext4")), "disk_space")
    assert [finding.severity for finding in findings] == ([] if severity is None else [severity])


def growing(rows_per_s: float, retention: rs.Retention | None = None, **of: Any) -> TableFacts:
    config = rs.TableConfig(CONFIG.columns, retention=retention or rs.Retention())
    rows = int(rows_per_s * 60)
    return table(config, of, insert_times=np.concatenate([[0.0], NOW - 60 + np.arange(1, rows + 1) * 60 / (rows + 1)]))


@pytest.mark.parametrize(("hours", "severity"), [(0.5, "error"), (10, "warning"), (100, None)])
def test_how_long_the_disk_lasts_at_the_present_rate(hours: float, severity: str | None) -> None:
    fast = growing(10_000.0)
    rate = fast.growth_bytes_per_s(NOW)
    assert fast.description is not None
    assert rate == pytest.approx(10_000 * fast.description.config.row_bytes, rel=0.01)
    free = int(rate * hours * 3600)
    findings = found(served(fast, disk=Disk(free, 2 * free, "ext4")), "disk_space")
    assert [finding.severity for finding in findings] == ([] if severity is None else [severity])
    if findings:
        assert "that lasts" in findings[0].found
        assert "(t)" in findings[0].advice
    bounded = growing(10_000.0, rs.Retention(max_bytes=1 << 20))  # it will be full long before the disk is
    assert found(served(bounded, disk=Disk(free, 2 * free, "ext4")), "disk_space") == []


def test_the_present_rate_of_inserts() -> None:
    assert growing(7.0).steps_per_s(NOW) == pytest.approx(7.0, rel=0.01)
    assert table(insert_times=np.full(50, NOW - 600)).steps_per_s(NOW) == 0
    full = table(insert_times=NOW - 4 + np.arange(400) / 100)  # more than were read in the last minute
    assert full.steps_per_s(NOW) == pytest.approx(100.0)
    assert table(of={"next_step": 100}, insert_times=NOW - 30 + np.arange(100) / 4).steps_per_s(NOW) == pytest.approx(100 / 60)
    assert TableFacts("t").steps_per_s(NOW) == TableFacts("t").growth_bytes_per_s(NOW) == 0


def test_bounds_that_do_not_fit_the_disk() -> None:
    config = rs.TableConfig(CONFIG.columns, retention=rs.Retention(max_steps=10**9))
    severity, text, advice = one(served(table(config), disk=Disk(50 * GIB, 100 * GIB, "xfs")), "bounds_fit")
    assert severity == "warning"
    assert "may grow by " in text
    assert "50.0 GiB are free" in text
    assert "alter_table('t'" in advice


def test_retention() -> None:
    assert found(served(table()), "retention") == []
    near = table(of={"next_step": 95_000})
    assert one(served(near), "retention")[:2] == (
        "note",
        "holds 95,000 of max_steps=100,000 rows (95 %): soon the oldest will go as new ones come",
    )
    full = table(of={"next_step": 100_000})
    assert full.is_full
    assert full.growth_bytes_per_s(NOW) == 0
    assert one(served(full), "retention")[1].endswith("(100 %): the oldest go as new ones come")
    small = rs.TableConfig(CONFIG.columns, retention=rs.Retention(max_bytes=3_400_000))
    assert "of max_bytes=3.2 MiB (" in one(served(table(small)), "retention")[1]
    quiet = dataclasses.replace(growing(1.0), insert_times=np.zeros(0))
    assert one(served(quiet), "retention")[:2] == ("note", "has no bound: it keeps all of its 10,000 rows (4.0 MiB)")
    assert one(served(growing(1.0)), "retention")[0] == "warning"


def test_memory() -> None:
    assert one(served(of={"rss_bytes": 15 * GIB}), "memory")[:2] == (
        "warning",
        "the server takes 15.0 GiB of 16.0 GiB of memory (94 %), mapped pages included",
    )
    assert one(served(table(of={"index_bytes": 9 * GIB})), "memory")[0] == "warning"
    assert one(served(table(of={"index_bytes": 15 * GIB})), "memory")[0] == "error"
    assert one(served(table(of={"bytes_on_disk": 100 * GIB})), "memory")[0] == "note"
    assert one(folder(strict_overcommit=True), "memory") == (
        "warning",
        "vm.overcommit_memory is 2: the kernel may refuse the address ranges that tables reserve and never fill",
        "sysctl vm.overcommit_memory=0",
    )


def test_descriptors() -> None:
    assert one(served(of={"open_files": 900, "max_open_files": 1024}), "descriptors")[:2] == (
        "warning",
        "900 of 1,024 descriptors are open (88 %), with 4 streams",
    )
    assert one(served(of={"open_files": 1000, "max_open_files": 1024}), "descriptors")[0] == "error"
    assert "max_streams=4,096" in one(served(of={"max_open_files": 1024}), "descriptors")[1]
    assert found(served(of={"max_open_files": 0}), "descriptors") == []


def test_bounds_of_the_server() -> None:
    of = {"append_streams": 4000, "sample_streams": 50}
    assert one(served(of=of), "streams")[:2] == ("warning", "4,050 of max_streams=4,096 streams are open: 4,000 write, 50 sample")
    full = one(served(of={"in_flight_bytes": 2 * GIB}), "streams")[1]  # as far as blocks alone, or batches alone, can come
    assert full == "2.0 GiB are in flight; max_in_flight_bytes=4.0 GiB allows 2.0 GiB each way"
    assert found(served(of={"in_flight_bytes": GIB}), "streams") == []
    assert found(served(of={"in_flight_bytes": GIB, "max_in_flight_bytes": 0}), "streams") == []
    assert found(served(of={**of, "max_streams": 0}), "streams") == []


# -- files


def test_a_table_that_cannot_be_read() -> None:
    severity, text, advice = one(folder(TableFacts("t", problem="steps/action/c.0 is too short")), "tables_readable")
    assert (severity, text, advice) == ("error", "steps/action/c.0 is too short", "replaystore verify /srv/replay --table t")


def test_a_table_that_refuses_inserts() -> None:
    severity, text, advice = one(served(table(failure="table 't' refuses inserts since: …")), "inserts_refused")
    assert (severity, text) == ("error", "table 't' refuses inserts since: …")
    assert "replaystore verify /srv/replay" in advice


def test_format_versions() -> None:
    assert one(folder(TableFacts("t", format_version=2)), "format_version")[0] == "error"
    assert one(folder(TableFacts("t", format_version=0)), "format_version")[0] == "note"


def test_a_crash_to_recover_from() -> None:
    severity, text, advice = one(folder(table(clean=False)), "recovery_pending")
    assert (severity, text) == ("warning", "nobody has the store open, and the last one who had did not close t")
    assert "replaystore serve --path /srv/replay" in advice
    assert found(folder(table(clean=False), of={"live": True}), "recovery_pending") == []
    assert found(served(table(clean=None)), "recovery_pending") == []


@pytest.mark.parametrize(("kind", "said"), [("tmpfs", "goes down"), ("nfs4", "network"), ("9p", "network"), ("overlay", "container")])
def test_file_systems(kind: str, said: str) -> None:
    severity, text, _ = one(folder(disk=Disk(500 * GIB, 1000 * GIB, kind)), "filesystem")
    assert (severity, said in text) == ("warning", True)


def test_permissions() -> None:
    assert one(folder(of={"mode": 0o777}), "permissions") == (
        "warning",
        "/srv/replay may be written by everybody (mode 0777)",
        "chmod o-w /srv/replay",
    )
    assert one(folder(of={"mode": 0o775}), "permissions")[0] == "note"
    assert "may not be written by you" in one(folder(of={"writable": False, "owned": False}), "permissions")[1]
    assert found(folder(of={"writable": False, "live": True}), "permissions") == []
    assert (
        one(served(socket=FileFacts("/run/s", 0o755)), "permissions")[1] == "the socket /run/s takes other users' connections (mode 0755)"
    )
    assert found(served(socket=FileFacts("/run/s", 0o600)), "permissions") == []


def test_chunk_files_that_are_large_beside_the_table() -> None:
    config = rs.TableConfig(
        {"observation": rs.Column((333, 333, 3), "uint8"), "action": rs.Column()}, retention=rs.Retention(max_steps=5000)
    )
    description = rs.TableDescription("t", config, 1, NOW, {"steps/observation": 4096, "steps/action": 256})
    severity, text, _ = one(served(table(config, description=description)), "chunk_fit")
    assert (severity, text) == ("note", "one chunk file of observation has 4,096 rows (1.3 GiB), max_steps is 5,000")


# -- exposure


def test_addresses_that_others_can_reach() -> None:
    public = {"addresses": ("0.0.0.0:7777", "unix:/s")}
    assert [(f.severity, f.found.split(":")[0]) for f in found(served(of=public), "network")] == [
        ("error", "everybody who reaches 0.0.0.0"),
        ("warning", "data travel to 0.0.0.0"),
    ]
    assert one(served(of={**public, "authenticated": True}), "network")[:2] == (
        "warning",
        "tokens and data travel to 0.0.0.0:7777 unencrypted",
    )
    assert one(served(of={**public, "encrypted": True}), "network")[0] == "error"
    assert found(served(of={**public, "encrypted": True, "authenticated": True}), "network") == []
    assert found(served(of={"addresses": ("[::1]:7777",)}), "network") == []


def test_a_file_of_tokens() -> None:
    assert one(served(token_file=FileFacts("/t", problem="/t: No such file or directory")), "token_file")[:2] == (
        "error",
        "/t: No such file or directory",
    )
    assert one(served(token_file=FileFacts("/t", 0o644)), "token_file")[:2] == (
        "error",
        "/t may be read or changed by everybody (mode 0644)",
    )
    assert one(served(token_file=FileFacts("/t", 0o640)), "token_file")[0] == "note"
    assert found(served(token_file=FileFacts("/t", 0o600)), "token_file") == []


@pytest.mark.parametrize(
    ("begins", "ends", "severity", "said"),
    [
        (-1, 100, None, ""),
        (-1, 20, "warning", "runs out in 20 d 0 h"),
        (-100, -3, "error", "ran out 3 d 0 h ago"),
        (2, 100, "error", "is valid only in 2 d 0 h"),
    ],
)
def test_certificates(begins: float, ends: float, severity: str | None, said: str) -> None:
    certificate = CertificateFacts("/c.pem", "replay.lan", NOW + begins * DAY, NOW + ends * DAY)
    findings = found(served(certificates=(certificate,)), "certificates")
    assert [finding.severity for finding in findings] == ([] if severity is None else [severity])
    assert all("the certificate of replay.lan in /c.pem" in finding.found and said in finding.found for finding in findings)


def test_a_file_without_certificates() -> None:
    assert one(served(certificates=(CertificateFacts("/c", problem="no certificates"),)), "certificates")[:2] == (
        "error",
        "/c: no certificates",
    )


def test_metrics_and_versions() -> None:
    assert one(served(of={"metrics": ""}), "metrics")[0] == "note"
    assert one(served(server_version="9.9"), "versions")[:2] == ("note", f"the server is replaystore 9.9, this client {rs.__version__}")
    assert one(served(protocol=2), "versions")[0] == "error"
    assert status().protocol == 1
