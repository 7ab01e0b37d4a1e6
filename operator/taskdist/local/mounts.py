"""Where a container's mount paths really are, and the text that names them.

Processes share one file system, so a mount path such as /var/run/app cannot exist for each container. It stands below
the container's root directory instead, and every text the pod hands to the process (command, arguments, environment)
is rewritten to point there. Pure but for `build`, which makes the tree of links. It cannot help a program that has
the path compiled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


class MountMap:
    """Rewrites mount paths; `targets` gives for each mount path the real directory or file behind it."""

    def __init__(self, root: Path, targets: Mapping[str, Path]) -> None:
        self.root = root
        self._targets = {_normal(path): target for path, target in targets.items()}
        # The longest first, so that a mount within a mount wins over its parent.
        paths = sorted(self._targets, key=len, reverse=True)
        # A path begins where no other path goes on, or after `://`; it ends at a slash or where no name goes on.
        # A dot ends it only if no name follows: `see /etc/app.` is a sentence, `/etc/app.d` another directory.
        self._pattern = (
            re.compile(
                r"(?:(?<=://)|(?<![\w./-]))(?:" + "|".join(map(re.escape, paths)) + r")(?=/|\.(?:[^\w.-]|$)|[^\w.-]|$)"
            )
            if paths
            else None
        )

    def translate(self, text: str) -> str:
        """The text with each mount path in it replaced by its real place below the root."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self.real(match[0]), text)

    def real(self, path: str) -> str:
        """The place below the root where a path within the container stands."""
        return f"{self.root}{path}"

    def mounted(self, path: str) -> bool:
        """Whether a path is a mount or lies within one."""
        path = _normal(path)
        return any(path == mount or path.startswith(f"{mount}/") for mount in self._targets)

    def build(self) -> None:
        """Make the root: one link for each mount. A mount within a mount becomes a link in the outer volume."""
        self.root.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._targets, key=len):
            place = Path(self.real(path))
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(self._targets[path])


def _normal(path: str) -> str:
    return "/" + path.strip("/")
