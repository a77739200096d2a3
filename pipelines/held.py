"""What engines held their devices for without a committed shard to show for it: found by notes that outlive them.

A shard's file says what its engine was held for since the file before. What comes after an engine's last file, when it
is killed or the job ends, stands in no file; so each engine keeps a note of since when, and until when it was seen. The
notes of a job that is finished are added up, those of earlier attempts among them, and are part of its report.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from monitoring.devices import Device
from pipelines.folder import JobFolder
from pipelines.statistics import DeviceSeconds, add_devices
from skipvision.errors import StorageError

log = logging.getLogger(__name__)

HELD = "held"
BEAT_SECONDS = 10.0
"""Between two looks at a note: so much of a killed engine's time is missing at most."""


class HeldNote:
    """Of one engine's process.

    Args:
        since: in seconds since 1970, when the device began to be held.
    """

    def __init__(
        self, folder: JobFolder, device: Device, since: float, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder, self._device, self._since, self._clock = folder, device, since, clock
        self._name = f"{HELD}/{uuid4().hex}.json"
        self._lock = threading.Lock()
        self.write()
        threading.Thread(target=self._beat, name="held", daemon=True).start()

    def settle(self, until: float) -> None:
        """What was held until then stands in a committed file; the note says so at once, or it would count twice."""
        with self._lock:
            self._since = max(self._since, until)
        self.write()

    def write(self) -> None:
        """Say that the engine is there. Storage that fails now is asked again at the next beat."""
        with self._lock:
            note = {"device": self._device.kind, "capacity": self._device.capacity, "units": self._device.units,
                    "since": self._since, "seen": self._clock()}  # fmt: skip
        try:
            self._folder.replace(self._name, json.dumps(note).encode())
        except StorageError:
            log.warning("since when the device is held could not be noted", exc_info=True)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            self.write()


def unaccounted(folder: JobFolder) -> tuple[DeviceSeconds, ...]:
    """What all notes of a job add up to, by device and capacity."""
    found = []
    for name in folder.names(HELD):
        if (content := folder.read(name)) is not None:
            note = json.loads(content)
            seconds = max(0.0, note["seen"] - note["since"]) * note["units"]
            found.append(DeviceSeconds(device=note["device"], capacity=note["capacity"], lost=seconds))
    return add_devices(found)
