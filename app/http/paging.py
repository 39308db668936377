"""Parameters of lists."""

from typing import Annotated

from fastapi import Query

CursorOf = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before.")]
LimitOf = Annotated[int, Query(ge=1, le=200, description="Largest number of items in the page.")]
