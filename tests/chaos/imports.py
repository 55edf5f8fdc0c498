"""What `forked`'s parent has imported; nothing of it may compute before the fork."""

import optuna

import orchestrator.cli.app
import orchestrator.cli.screen
import orchestrator.idennet
import orchestrator.record
import orchestrator.search.packs
import orchestrator.trunks  # noqa: F401

optuna.importance.get_param_importances  # noqa: B018  # which is imported when it is asked for
