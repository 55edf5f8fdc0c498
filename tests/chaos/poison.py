"""IDEnNet with a trial that kills its worker after an epoch, where the environment says so."""

import os
import signal
from dataclasses import replace

from orchestrator.idennet import Idennet
from orchestrator.progress import Progress

SWITCH = "CHAOS_POISON"


class Poison(Idennet):
    """The trial of variant original on fold 4 does it."""

    def run(self, pack, context):
        there = any(t.fold == 4 and t.configuration.settings["variant"] == "original" for t in pack.trials)

        def listen(event):
            context.listen(event)
            if isinstance(event, Progress) and event.epoch == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        return super().run(pack, replace(context, listen=listen) if there and SWITCH in os.environ else context)
