"""The history API as an application."""

import pytest
from sqlalchemy import text

from history_consumer.read_api.app import create_app
from history_consumer.settings import HistoryApiSettings


async def test_the_reader_of_the_history_api_is_refused_a_write(database_url: str) -> None:
    app = create_app(HistoryApiSettings(auth="none", database_url=database_url, log_level="warning"))
    async with app.router.lifespan_context(app), app.state.context.reader.connect() as connection:
        with pytest.raises(RuntimeError, match="only reads"):
            await connection.execute(text("DELETE FROM history.dead_letters"))
