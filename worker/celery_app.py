"""The doorbell and the fleet: Celery, with everything off that a database row does better."""

import signal
from collections.abc import Callable

from celery import Celery, signals

from app.queue import plans_of
from app.settings import Settings


def make_app(broker_url: str) -> Celery:
    """The Celery application of a worker."""
    # Celery sets up no log lines of its own where somebody says that he has.
    signals.setup_logging.connect(_leave_logs, weak=False)
    app = Celery("worker", broker=broker_url, backend=None)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        # The row says who has the job: a message is of no more use once it is heard.
        task_acks_late=False,
        task_ignore_result=True,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
    )
    return app


def _leave_logs(**_: object) -> None:
    pass


def arguments(settings: Settings, name: str) -> list[str]:
    """The command line of the Celery worker: a thread for each slot, the one for plans included."""
    queues = [*settings.queues, *map(plans_of, settings.queues)]
    return [
        "--quiet", "worker", "--pool", "threads", "--concurrency", str(settings.slots + 1),
        "--queues", ",".join(queues), "--hostname", name,
        "--without-gossip", "--without-mingle", "--loglevel", settings.log_level,
    ]


def on_shutdown(set_flag: Callable[[], None]) -> None:
    """Call this when a signal asks the worker to end. From inside the signal handler: it may set a flag, no more."""

    def shutting_down(**_: object) -> None:
        set_flag()

    def ready(**_: object) -> None:
        # Celery would restart itself at SIGHUP, without the environment that was scrubbed; and give SIGINT
        # another exit code. Both drain instead.
        for other in (signal.SIGINT, signal.SIGHUP):
            signal.signal(other, signal.getsignal(signal.SIGTERM))

    signals.worker_shutting_down.connect(shutting_down, weak=False)
    signals.worker_ready.connect(ready, weak=False)
