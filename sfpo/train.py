"""Train one run: ``python -m sfpo.train runs/<suite>/<model>/<dataset>/<arm>/seed<k>/settings.json``.

The settings file is written by ``python -m sfpo.jobs --write`` (the workflow does so automatically); results are written to its
folder. Several processes train one run together: ``torchrun --nproc-per-node <processes> -m sfpo.train <settings>``.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from sfpo.ranks import cores


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path, help="settings.json of the run")
    parser.add_argument("--threads", type=int, default=cores(), help="CPU threads per process (default: all cores)")
    parser.add_argument("--identity", help="fail unless the settings have this hash (the workflow passes it)")
    parser.add_argument("--wait", action="store_true", help="if another process is training this run, wait until it ends")
    arguments = parser.parse_args(argv)
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    # vLLM fixes the threads of this process when it is imported, so the variable comes before the imports.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    # On a GPU, segments that can grow fit the next micro-batch, whatever its shape. vLLM (0.32.0, device_allocator/cumem.py)
    # switches this off by itself while it fills the memory that it releases when it sleeps.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    from sfpo.plan.remedies import require_room
    from sfpo.preflight import require_fit
    from sfpo.settings import RunSettings, load_settings

    settings = load_settings(RunSettings, arguments.settings, arguments.identity)
    require_fit(settings.recipe.sampler.library)
    require_room(settings)
    from sfpo.trainer.loop import train

    train(settings, arguments.settings.parent, arguments.wait)


if __name__ == "__main__":
    main()
