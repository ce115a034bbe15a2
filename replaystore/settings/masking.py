"""What is never shown of a value."""

from __future__ import annotations

import re
from typing import Any

_USER = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"\?.*")


def without_password(value: Any) -> Any:
    """A URL without the user, the password and the query that it may hold; everything else as it is."""
    if not isinstance(value, str) or "://" not in value:
        return value
    return _QUERY.sub("?***", _USER.sub("***@", value))
