"""From a trained student to a bundle that was proven to answer alike.

The pipeline calls three things, in this order:

    latencies = measure_latency({"student": student, "control": control}, one_input, passes={"teacher": its_pass})
    report = build_report(...)                                  # worker.engine.report
    exported = export_bundle(scratch=..., student=..., report=report, ...)
    yield Finished(report=exported.report, files=exported.files)
"""

from worker.engine.export.bundle import Exported, export_bundle
from worker.engine.export.latency import measure_latency
from worker.engine.export.prove import Evaluation

__all__ = ["Evaluation", "Exported", "export_bundle", "measure_latency"]
