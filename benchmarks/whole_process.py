"""Run a command, and tell its time and peak memory.

    python -I -S whole_process.py COMMAND ...

The last line of the output is JSON: exit status, seconds by the clock and of
all cores, and bytes. It imports little, because a process inherits the peak
memory of the process that starts it.
"""

import json
import os
import sys
import time


def main() -> None:
    started = time.perf_counter()
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    _, status, used = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    found = {
        "status": os.waitstatus_to_exitcode(status),
        "wall_seconds": round(seconds, 3),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        # Linux counts in KiB, macOS in bytes.
        "peak_memory_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
