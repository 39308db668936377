"""`python -m worker`: a Celery worker whose jobs run in children of a warm forkserver.

`python -m worker health` tells by its exit code whether the worker of these settings is well, and what confines its
trainers.
"""

import logging
import sys
from collections.abc import Callable

from app import queue
from app.kit import logs
from app.settings import settings
from app.storage.stores import open_files
from worker import celery_app, numbers, pulse, reaper, sandbox, scratch, tasks
from worker.child import warm_up
from worker.environment import allow_many_files, hide, scrub
from worker.workshop import Workshop, open_workshop

log = logging.getLogger("worker")


def main() -> None:
    """Run until a signal; SIGTERM, SIGINT and SIGHUP drain."""
    config = settings()
    secrets = logs.secrets_of(config)
    logs.configure(config.log_format, config.log_level, process="worker", secrets=secrets)
    # Credentials may come from the environment, which is about to be forgotten.
    files = open_files(config)
    # In this order, while there is one thread: what the forkserver and its children inherit is settled here.
    hide()
    scrub()
    logging.getLogger("worker").info(sandbox.summary(config.sandbox))
    allow_many_files()
    warm_up(config.engine)
    shop = open_workshop(config, files)
    logs.configure(config.log_format, config.log_level, process="worker", secrets=secrets, worker=shop.name)
    stop_numbers = _serve_numbers(shop)
    scratch.sweep(config.scratch_folder)
    shop.cache.sweep()
    app = celery_app.make_app(config.broker_url)
    tasks.register(app, shop)
    celery_app.on_shutdown(shop.draining.set)
    reaper.start(shop)
    try:
        app.worker_main(celery_app.arguments(config, shop.name))
    finally:  # now that this worker hears nothing more, not even itself
        for rung, job_id in shop.unheard:
            queue.ring(config.broker_url, rung, job_id)
        stop_numbers()


def _serve_numbers(shop: Workshop) -> Callable[[], None]:
    config = shop.settings
    try:
        return numbers.serve(shop.numbers, config)
    except OSError as error:
        log.critical(
            "This worker cannot tell its numbers on %s, port %s: %s. Give it a port of its own by "
            "STILLHOUSE_METRICS_PORT, or none.", config.metrics_host, config.metrics_port, error.strerror or error,
        )
        sys.exit(2)


if sys.argv[1:] == ["health"]:
    print(sandbox.summary(settings().sandbox))  # noqa: T201 - what the command is asked for
    sys.exit(pulse.problem(settings()))
main()
