"""What operators and auditors do with a pipeline, as their roles.

The settings are a superuser's, with which a test arranges and checks.
"""

from common.settings import PipelineSettings
from common.tables.roles import Role
from history_consumer.rebuild import rebuild as rebuild_module
from history_consumer.rebuild.result import RebuildResult, Source
from outbox_relay.operations import replay as replay_module
from outbox_relay.operations.replay import Selection
from support.roles import ROLES
from walletctl.restore import restore
from walletctl.verify import audit as audit_module
from walletctl.verify.report import Report

ALL_ROWS = Selection()


async def audit(settings: PipelineSettings, *, since_last: bool = False) -> Report:
    """Audit the pipeline as `walletctl verify` does."""
    return await audit_module.audit(ROLES.settings(settings, Role.AUDITOR), since_last=since_last)


async def rebuild(settings: PipelineSettings, source: Source = "auto") -> RebuildResult:
    """Rebuild the history as `walletctl history rebuild` does."""
    return await rebuild_module.rebuild(ROLES.settings(settings, Role.OPERATOR), source)


async def replay(settings: PipelineSettings, selection: Selection = ALL_ROWS) -> None:
    """Replay events as `walletctl outbox replay` does."""
    async with ROLES.engine(settings.database_url, Role.OPERATOR) as engine:
        async for _ in replay_module.replay(engine, selection):
            pass


async def begin_epoch(settings: PipelineSettings, reason: str | None = None) -> restore.EpochStart:
    """Begin an epoch as `walletctl restore begin` does."""
    return await restore.begin(ROLES.settings(settings, Role.OPERATOR), reason)


async def find_lost(settings: PipelineSettings, events_max: int) -> restore.LossReport:
    """Find lost events as `walletctl restore lost` does."""
    return await restore.find_lost(ROLES.settings(settings, Role.OPERATOR), events_max)
