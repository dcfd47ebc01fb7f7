"""The roles of `common.tables.roles` as the tests log in as them, under names that no other roles have."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from common.postgres.engine import create_engine
from common.postgres.privileges import apply_grants
from common.secrets import Secret
from common.settings import PipelineSettings
from common.tables.roles import Role
from support.databases import patient_engine, run_sql, text_of


@dataclass(frozen=True)
class Roles:
    """The roles' names in the server, and the password that all of them have."""

    names: Mapping[Role, str]
    password: str = field(default_factory=lambda: uuid4().hex)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name the roles for `walletctl db migrate`."""
        return {f"{role.upper()}_ROLE": name for role, name in self.names.items()}

    def url(self, url: Secret | str, role: Role) -> str:
        """Return the URL of the same database for that role."""
        logged_in = make_url(text_of(url)).set(username=self.names[role], password=self.password)
        return logged_in.render_as_string(hide_password=False)

    def settings(self, settings: PipelineSettings, role: Role) -> PipelineSettings:
        """Return the settings of the same pipeline for that role."""
        urls = {name: getattr(settings, name) for name in ("database_url", "history_database_url")}
        return settings.model_copy(update={name: Secret(self.url(url, role)) for name, url in urls.items()})

    @asynccontextmanager
    async def engine(self, url: Secret | str, role: Role) -> AsyncIterator[AsyncEngine]:
        """Lend an engine that logs in to the same database as that role."""
        async with patient_engine(self.url(url, role)) as engine:
            yield engine

    async def create(self, url: str) -> None:
        """Make the roles in the server of that URL."""
        await run_sql(url, *self.login_statements(create=Role))

    def login_statements(self, create: Iterable[Role] = ()) -> list[str]:
        """Return the SQL that lets these roles in, which are to be created, or all roles, which exist."""
        verb, roles = ("CREATE", create) if create else ("ALTER", Role)
        return [f"{verb} ROLE {self.names[role]} LOGIN PASSWORD '{self.password}'" for role in roles]

    async def drop(self, url: str) -> None:
        """Drop the roles. No database may know them any more."""
        await run_sql(url, f"DROP ROLE {', '.join(self.names.values())}")

    async def grant(self, url: str) -> None:
        """Give the roles their privileges in that database."""
        engine = create_engine(url, "tests")
        try:
            await apply_grants(engine, self.names)
        finally:
            await engine.dispose()


def new_roles() -> Roles:
    """Return roles with names of their own."""
    suffix = uuid4().hex[:12]
    return Roles({role: f"{role.value}_{suffix}" for role in Role})


ROLES = new_roles()
"""The roles of the databases that the fixtures make: of `database_url`, and of the pipelines."""
