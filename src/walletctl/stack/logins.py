"""The logins of a stack's roles: each has a random password, which is new at each start."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg

from common.postgres.grants import USUAL_NAMES, role_statements
from common.tables.roles import Role
from walletctl.stack.postgres import Postgres, login_url


def _new_passwords() -> dict[Role, str]:
    return {role: secrets.token_hex(16) for role in Role}


@dataclass(frozen=True)
class Logins:
    """The roles' logins to a stack's server."""

    server: Postgres
    _passwords: Mapping[Role, str] = field(default_factory=_new_passwords, repr=False)

    @property
    def superuser_url(self) -> str:
        """The database's URL for the superuser."""
        return self.server.url

    def url(self, role: Role) -> str:
        """Return the database's URL for the role."""
        return login_url(role, self._passwords[role], self.server.port)

    async def create(self) -> None:
        """Make the roles that are missing, and set the password of each. The server must run."""
        # Given here, so that PGSSLMODE and other variables do not apply.
        connection = await asyncpg.connect(self.superuser_url, ssl=False, target_session_attrs="any")
        try:
            # A statement that failed would be in the server's log, with the password.
            await connection.execute("SET log_min_error_statement = panic")
            for statement in role_statements(USUAL_NAMES):
                await connection.execute(statement)
            for role, password in self._passwords.items():
                await connection.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{password}'")
        finally:
            await connection.close()
