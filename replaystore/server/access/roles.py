"""Roles, and the one table of which method needs which role on what."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Role(IntEnum):
    """What one may do with a table or a parameter set; each includes those before it."""

    none = 0
    read = 1
    """Sample, read rows and episodes, describe, count; fetch parameters."""
    write = 2
    """Append, update priorities and columns, delete rows, flush; publish parameters."""
    admin = 3
    """Create, alter, drop, snapshot; make a fork of that name."""


NEEDS: Mapping[str, tuple[tuple[str, Role], ...]] = {
    "Append": (("table", Role.write),),
    "Sample": (("table", Role.read),),  # priorities that ride on a request need what UpdatePriorities needs
    "UpdatePriorities": (("table", Role.write),),
    "UpdateColumns": (("table", Role.write),),
    "Delete": (("table", Role.write),),
    "Flush": (("table", Role.write),),
    "CreateTable": (("table", Role.admin),),
    "AlterTable": (("table", Role.admin),),
    "DropTable": (("table", Role.admin),),
    "Snapshot": (("table", Role.admin),),
    "ForkTable": (("table", Role.read), ("new_table", Role.admin)),
    "ListTables": (),  # shows those that may be read
    "DescribeTable": (("table", Role.read),),
    "GetStats": (("table", Role.read),),
    "ReadSteps": (("table", Role.read),),
    "ReadEpisodes": (("table", Role.read),),
    "PublishParameters": (("name", Role.write),),
    "FetchParameters": (("name", Role.read),),
    "GetServerInfo": (),
    "GetServerStatus": (),  # of tables that may be read
}
"""By method of the service: fields of its request that name a table or a parameter set, and the role needed on each. A method that is not
here is refused; one with nothing here is for every caller that the server knows."""
