"""The slots of sensors by name. The writer alone changes the directory; a lane gives a slot back by ``release``."""

from __future__ import annotations

import numpy as np

__all__ = ["Directory"]


class Directory:
    """``capacity`` sensors at most, spread over ``lanes`` lanes. ``next_id``: the first id that was never used."""

    def __init__(self, capacity: int, lanes: int, next_id: int) -> None:
        self.capacity, self.next_id = capacity, next_id
        self.per_lane = -(-capacity // lanes)
        count = self.per_lane * lanes
        #: Slots of the sensors that are known, by name, in the order in which they were opened.
        self.slots: dict[str, int] = {}
        #: Changes whenever a name comes or goes.
        self.version = 0
        #: For every slot: the sensor's name and its id, which no other sensor ever had. "" and 0: the slot is free.
        self.names: list[str] = [""] * count
        self.ids = np.zeros(count, np.int64)
        #: For every slot: the last record that holds its readings, and the record up to which its state is saved.
        self.written, self.saved = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._free = [list(range((i + 1) * self.per_lane - 1, i * self.per_lane - 1, -1)) for i in range(lanes)]

    def reserve(self) -> tuple[int, int] | None:
        """A free slot and a new id for it; ``None``: none is free. :meth:`enter` or :meth:`release` follows."""
        free = max(self._free, key=len)
        if not free:  # removed sensors still hold slots until their lanes have released them
            return None
        slot, id = free.pop(), self.next_id
        self.next_id += 1
        self.ids[slot] = id
        return slot, id

    def enter(self, name: str, slot: int) -> None:
        self.slots[name], self.names[slot] = slot, name
        self.version += 1

    def leave(self, name: str) -> None:
        """The name is unknown from now on. The slot stays taken until :meth:`release`."""
        del self.slots[name]
        self.version += 1

    def release(self, slot: int) -> None:
        self.ids[slot] = self.written[slot] = self.saved[slot] = 0
        self.names[slot] = ""
        self._free[slot // self.per_lane].append(slot)

    def restore(self, name: str, id: int, seq: int) -> int:
        """Give a sensor of the last run a slot; -1: none is left."""
        if len(self.slots) >= self.capacity or (reserved := self.reserve()) is None:
            return -1
        slot, _ = reserved
        self.next_id = max(self.next_id - 1, id + 1)
        self.ids[slot] = id
        self.enter(name, slot)
        self.saved[slot] = self.written[slot] = seq
        return slot
