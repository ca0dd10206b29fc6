"""The zoo: made-up submissions with the marks they deserve, written down before the grader ever saw them.

Entries with a story that is only about one short cell hand in the short cells solved and the long ones as released:
what is unharmed by the cheat shows in the other marks.
"""

from __future__ import annotations

from zoo.damage import DAMAGE
from zoo.escapes import ESCAPES
from zoo.forgeries import FORGERIES
from zoo.harm import HARM
from zoo.honest import HONEST
from zoo.kit import FULL, LIGHT, MARKER, NOTHING, Entry, Kit, Link
from zoo.masks import MASKS
from zoo.schedulers import SCHEDULERS

ENTRIES: tuple[Entry, ...] = (*HONEST, *DAMAGE, *FORGERIES, *ESCAPES, *SCHEDULERS, *MASKS, *HARM)

__all__ = ["ENTRIES", "FULL", "LIGHT", "MARKER", "NOTHING", "Entry", "Kit", "Link"]
