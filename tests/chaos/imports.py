"""What `forked`'s parent has imported; nothing of it may compute before the fork."""

import optuna

import idennet_core.checkpoint
import idennet_core.metrics
import idennet_core.packed
import idennet_core.pretraining  # noqa: F401
import orchestrator.cli.app
import orchestrator.cli.screen
import orchestrator.idennet
import orchestrator.record
import orchestrator.search.packs
import orchestrator.trunks  # noqa: F401

optuna.importance.get_param_importances  # noqa: B018  # which is imported when it is asked for
