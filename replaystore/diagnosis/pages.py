"""docs/DOCTOR.md: every check as its docstring tells it."""

from __future__ import annotations

import inspect

from replaystore.diagnosis.examination import CHECKS

INTRODUCTION = """# What the doctor looks at

Made by `make docs` from the checks themselves; a test keeps it so.

`replaystore doctor WHERE` looks at a server (`HOST:PORT`, `unix:PATH`) or a store's folder, says what is wrong, with numbers, and what to
type, and changes nothing. What moves is looked at twice, `--watch` seconds apart. It ends with 0 when all is fine, 1 when it found an error
or a warning (notes do not count), 2 on wrong usage. `--json` prints one object: `findings` is a list of `severity`, `check`, `table`,
`found`, `advice`, the worst first.

- **error**: something does not work, or is about to stop.
- **warning**: something should be looked at.
- **note**: worth knowing.

A server tells most: who waits and why, its memory, descriptors, streams and bounds. A folder tells what its files tell; where the store is
served, ask both. `--tls-cert FILE` and `--token-file FILE` have it look at the server's certificates and at who may read its tokens; it
does not read the tokens.
"""


def doctor_page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for check in CHECKS:
        title, _, body = inspect.cleandoc(check.__doc__ or "").partition("\n\n")
        parts.append(f"## `{check.__name__}`: {title.rstrip('.')}\n\n{body}\n")
    return "\n".join(parts)
