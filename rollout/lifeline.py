"""A process that ends when another one does, however that one ends (Linux)."""

from __future__ import annotations

import os
import select
import threading


def end_with(process_id: int) -> None:
    """End this process as soon as the process `process_id` has ended, killed or not.

    Raises ProcessLookupError where it has ended already.
    """
    handle = os.pidfd_open(process_id)
    threading.Thread(target=_exit_after, args=(handle,), name="lifeline", daemon=True).start()


def _exit_after(handle: int) -> None:
    select.select([handle], [], [])  # becomes readable when the process ends
    os._exit(1)
