"""Eight writers, and all that goes on beside them: folds, comparisons, switches, kills.

`run` is what the test does for some seconds and `script/bench counters` for a minute.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping

from bench.harness import PROJECT
from bench.stress import populate

WRITERS = 8
KILL_EVERY = 1.5  # seconds, of a worker that folds
_FOLDER = (
    "import django; django.setup()\n"
    "from counters import actions\n"
    "while True: actions.fold(rows=200)\n"
)
_SWITCHER = (
    "import django; django.setup()\n"
    "import itertools, random, time\n"
    "from counters import actions, declared\n"
    "from counters.declared import Counter\n"
    "kept = [one for one in declared.all().values() if isinstance(one, Counter)]\n"
    "for mode in itertools.cycle(['deferred', 'inline']):\n"
    "    for counter in kept:\n"
    "        actions.set_mode(name=counter.name, mode=mode)\n"
    "        found = actions.compare(counter=counter, mend=True, rows=20)\n"
    "        if found.wrong: print(found, flush=True)\n"
    "        time.sleep(0.05)\n"
)


def run(url: str, environment: Mapping[str, str], seconds: float) -> dict:
    """What the writers did; `false_drift`: what comparisons meanwhile took for wrong; `kills`.

    `environment`: of processes of the project that work on the same database.
    """
    populate(url)
    writers = [_writer(url, seconds, seed) for seed in range(WRITERS)]
    folders = [_process(_FOLDER, environment) for _ in range(2)]
    switcher = _process(_SWITCHER, environment)
    said: list[str] = []
    listening = threading.Thread(target=lambda: said.extend(switcher.stdout))
    listening.start()
    kills, chance = 0, random.Random(1)
    try:
        while any(writer.poll() is None for writer in writers):
            time.sleep(KILL_EVERY)
            victim = folders.pop(chance.randrange(len(folders)))
            victim.kill()
            victim.wait()
            kills += 1
            folders.append(_process(_FOLDER, environment))
    finally:
        for process in (*folders, switcher):
            process.kill()
            process.wait()
        listening.join()
        for writer in writers:
            writer.kill()
    done: Counter[str] = Counter()
    for writer in writers:
        output, _ = writer.communicate()
        done.update(json.loads(output) if writer.returncode == 0 else {"died": 1})
    return {
        "deadlocks": done.pop("deadlocks", 0),
        "negatives": done.pop("negatives", 0),
        "died": done.pop("died", 0),
        "statements": done.total(),
        "steps": dict(done),
        "kills": kills,
        "false_drift": said,
    }


def _writer(url: str, seconds: float, seed: int) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.stress"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    process.stdin.write(json.dumps({"url": url, "seconds": seconds, "seed": seed}))
    process.stdin.close()
    process.stdin = None
    return process


def _process(program: str, environment: Mapping[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=dict(environment) | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    )
