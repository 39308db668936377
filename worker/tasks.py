"""The one task: a ring. The job's id in it is only a hint; the best queued job is taken."""

from typing import Any

from celery import Celery, Task

from app.queue import TASK
from worker.supervisor import serve
from worker.workshop import Workshop


def register(app: Celery, shop: Workshop) -> None:
    """Have rings answered by this worker."""

    @app.task(name=TASK, bind=True)  # type: ignore[untyped-decorator]
    def run(task: "Task[Any, Any]", job_id: str) -> None:
        rung = task.request.delivery_info["routing_key"]
        if shop.draining.is_set():
            shop.unheard.append((rung, job_id))
        else:
            serve(shop, rung)
