"""Distil MNIST end to end on this machine, as a client of the public API. Run by `make demo`.

Starts the whole service on a free port, uploads the teacher and the data, runs a job with nothing but the defaults,
downloads the compressed model, opens it in a fresh process, prints what it kept, and stops all that it started.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer
from rich.markup import escape

from stillhouse import Client, wording
from stillhouse.cli import jobs
from stillhouse.cli.drafting import draft
from stillhouse.cli.exits import Exit, tell_error, told_plainly
from stillhouse.cli.output import answers, report_table, tell
from stillhouse.cli.serving import signals_interrupt, started
from stillhouse.contract.report import Report

HERE = Path(__file__).resolve().parent
HOME = HERE.parent.parent / ".stillhouse-demo"
TEACHER = HERE / "teacher.safetensors"
IMAGES = HERE / "t10k-images-idx3-ubyte.gz"
LABELS = HERE / "t10k-labels-idx1-ubyte.gz"

# Run by itself, outside the checkout: what a user of the downloaded file would write.
FRESH_PROCESS = """
import gzip, json, sys
import numpy as np
import stillhouse

bundle, images, labels = sys.argv[1:]
pixels = np.frombuffer(gzip.open(images).read(), np.uint8, offset=16).reshape(-1, 28, 28)
truth = np.frombuffer(gzip.open(labels).read(), np.uint8, offset=8)
model = stillhouse.load(bundle)
first = model.predict(pixels[0])[0]
answers = [answer.index for answer in model.predict(pixels)]
print(json.dumps({
    "answer": first.label, "probability": first.probability, "truth": str(truth[0]),
    "accuracy": float((np.array(answers) == truth).mean()),
}))
"""


class DemoFailedError(Exception):
    """A step of the demo did not do what it should."""


def main() -> int:
    """Run the demo; returns the exit status."""
    began = time.monotonic()
    try:
        with told_plainly(), signals_interrupt():
            distil_mnist()
    except DemoFailedError as error:
        tell_error(str(error))
        return Exit.FAILED
    except typer.Exit as end:
        return end.exit_code
    tell(f"\nEverything that was started is stopped. It took {time.monotonic() - began:.0f} s in all.")
    return Exit.OK


def distil_mnist() -> None:
    """Service, upload, job, download, proof, table."""
    wanted = draft(teacher=str(TEACHER), student="mlp:64", data=HERE, name="mnist-demo")
    with started(HOME, port=0, workers=1) as local, Client(local.url, local.key) as client:
        tell(f"[bold]1.[/] the service is up at {local.url}: API, queue, database and one worker")
        cancel_leftovers(client)
        tell("[bold]2.[/] uploading the teacher and MNIST")
        spec = wanted.uploaded(client)
        tell("[bold]3.[/] a job with only teacher, student and data: distil into 784-64-10")
        job = client.submit(spec)
        jobs.end_as(jobs.follow_job(job, farewell="stopping"))
        tell("[bold]4.[/] downloading the compressed model")
        bundle = jobs.fetch(job, HOME / "student.zip")
        page = job.report_html(HOME / "report.html")
        report = job.report()
    tell("[bold]5.[/] opening it in a fresh process, without the service")
    check_bundle(bundle, report)
    answers().print()
    answers().print(report_table(report))
    for sentence in (wording.verdict(report), wording.gain_sentence(report)):
        answers().print(escape(sentence))
    answers().print(f"\nmodel   {bundle}\nreport  {page}", soft_wrap=True, markup=False)


def cancel_leftovers(client: Client) -> None:
    """A demo that was interrupted left its job in the queue, before this one's."""
    for job in client.jobs():
        if not job.terminal:
            client.job(job.id).cancel()


def check_bundle(bundle: Path, report: Report) -> None:
    """Have a new interpreter load the bundle and answer for the test images; DemoFailedError if it cannot."""
    command = [sys.executable, "-c", FRESH_PROCESS, str(bundle), str(IMAGES), str(LABELS)]
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoFailedError(f"the bundle could not be used in a fresh process:\n{done.stderr}")
    told = json.loads(done.stdout)
    tell(
        f"   the first test image is a {told['truth']}; the student answers {told['answer']} "
        f"({wording.percent(told['probability'])})\n   on all test images it is right on "
        f"{wording.percent(told['accuracy'])}"
    )
    student = report.subject("student")
    if student is None or student.scores.accuracy is None:
        raise DemoFailedError("the report does not tell the student's accuracy")
    if abs(student.scores.accuracy - told["accuracy"]) > 1e-3:  # noqa: PLR2004 - 10 of 10,000 images
        raise DemoFailedError(f"the report says {wording.percent(student.scores.accuracy)}")


if __name__ == "__main__":
    sys.exit(main())
