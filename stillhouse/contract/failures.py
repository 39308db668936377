"""Every way in which a user's request or job can fail: one class, one stable code, one row in docs/errors.md.

The docstring of a class is its default message. The same object is raised in the API, where it becomes
problem+json, and in the trainer, where it becomes the job's `error`.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Blame(StrEnum):
    """Who can mend it."""

    USER = "user"
    SYSTEM = "system"
    INFRASTRUCTURE = "infrastructure"


class FieldError(BaseModel):
    """One field of a request that is wrong."""

    model_config = ConfigDict(frozen=True)

    pointer: str = Field(description="JSON pointer of the field in the request body, or the name of the parameter.")
    detail: str = Field(description="What is wrong and what to do instead.")
    suggestion: str | None = Field(default=None, description="The nearest known name, where one was misspelt.")


class Failure(BaseModel):
    """What went wrong, for people and for programs."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(description="Stable name of the failure; docs/errors.md explains each.")
    message: str = Field(description="What happened and what to do instead.")
    param: str | None = Field(default=None, description="JSON pointer of the field of the spec that caused it.")
    blame: Blame = Field(description="Who can mend it.")
    retryable: bool = Field(description="Whether the same request may succeed later, unchanged.")
    step: int | None = Field(default=None, description="Step of training at which it happened.")


class StillhouseError(Exception):
    """Base of every failure with a code. Subclasses set the code; their docstring is the default message."""

    code: ClassVar[str]
    # A plain number where HTTP itself knows no name for it.
    http_status: ClassVar[int] = HTTPStatus.UNPROCESSABLE_ENTITY
    blame: ClassVar[Blame] = Blame.USER
    retryable: ClassVar[bool] = False
    # Seconds after which a retry makes sense, where that is known.
    retry_after: float | None = None

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        step: int | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.param = param
        self.step = step
        self.errors = tuple(errors)
        super().__init__(self.message)

    def as_failure(self) -> Failure:
        """The failure as data, for a job's `error`."""
        return Failure(
            code=self.code, message=self.message, param=self.param, blame=self.blame,
            retryable=self.retryable, step=self.step,
        )


def every_failure() -> Iterator[type[StillhouseError]]:
    """Each concrete failure: what docs and OpenAPI must list."""
    pending = [StillhouseError]
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        if "code" in vars(kind):
            yield kind


# Told by the API: requests


class InvalidRequestError(StillhouseError):
    """A parameter, header or body of the request is not of the declared form."""

    code = "invalid_request"


class InvalidSpecError(StillhouseError):
    """The job spec is not valid."""

    code = "invalid_spec"


class SpecTooLargeError(StillhouseError):
    """The job spec is larger than this service accepts."""

    code = "spec_too_large"
    http_status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class MalformedJsonError(StillhouseError):
    """The request body is not JSON."""

    code = "malformed_json"
    http_status = HTTPStatus.BAD_REQUEST


class InvalidCursorError(StillhouseError):
    """The cursor is not one that this service gave out; start again without it."""

    code = "invalid_cursor"


class UnauthenticatedError(StillhouseError):
    """The API key is missing, wrong, expired or revoked; send `Authorization: Bearer <key>`."""

    code = "unauthenticated"
    http_status = HTTPStatus.UNAUTHORIZED


class MissingScopeError(StillhouseError):
    """The API key lacks the scope that this takes."""

    code = "missing_scope"
    http_status = HTTPStatus.FORBIDDEN


class StorageQuotaExceededError(StillhouseError):
    """You have as many bytes stored as you may; delete artifacts that you no longer need, or ask the operator."""

    code = "storage_quota_exceeded"
    http_status = HTTPStatus.FORBIDDEN


class TooManyQueuedJobsError(StillhouseError):
    """You have as many jobs queued as you may; wait until some have begun, or cancel some."""

    code = "too_many_queued_jobs"
    http_status = HTTPStatus.TOO_MANY_REQUESTS
    retryable = True
    retry_after = 30


class RateLimitedError(StillhouseError):
    """The key has sent too many requests: the header Retry-After tells when the next one is answered."""

    code = "rate_limited"
    http_status = HTTPStatus.TOO_MANY_REQUESTS
    retryable = True

    def __init__(self, message: str | None = None, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyStreamsError(StillhouseError):
    """As many streams are open with this key as may be; close some, or poll."""

    code = "too_many_streams"
    http_status = HTTPStatus.TOO_MANY_REQUESTS
    retryable = True
    retry_after = 10


class RequestTimeoutError(StillhouseError):
    """The request's body came too slowly; nothing of it was kept."""

    code = "request_timeout"
    http_status = HTTPStatus.REQUEST_TIMEOUT
    retryable = True


class KeyEndedError(StillhouseError):
    """The API key was revoked or has expired; make a new one."""

    code = "key_ended"
    http_status = HTTPStatus.CONFLICT


class ForbiddenOriginError(StillhouseError):
    """The request's Host or Origin is not one that this service answers."""

    code = "forbidden_origin"
    http_status = HTTPStatus.FORBIDDEN


class NotFoundError(StillhouseError):
    """There is nothing here with this id."""

    code = "not_found"
    http_status = HTTPStatus.NOT_FOUND


class MethodNotAllowedError(StillhouseError):
    """That method is not one that the resource answers to; the Allow header lists them."""

    code = "method_not_allowed"
    http_status = HTTPStatus.METHOD_NOT_ALLOWED


class NotReadyError(StillhouseError):
    """The job has not produced this yet."""

    code = "not_ready"
    http_status = HTTPStatus.CONFLICT
    retryable = True


class IllegalActionError(StillhouseError):
    """The job's status does not allow this action."""

    code = "illegal_action"
    http_status = HTTPStatus.CONFLICT

    def __init__(self, message: str | None = None, *, allowed: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.allowed_actions = sorted(allowed)


class IdempotencyMismatchError(StillhouseError):
    """The Idempotency-Key was used with another request; use a new key."""

    code = "idempotency_key_reused"


class IdempotencyInFlightError(StillhouseError):
    """A request with this Idempotency-Key is still being answered; try again in a moment."""

    code = "idempotency_key_in_flight"
    http_status = HTTPStatus.CONFLICT
    retryable = True


class RangeNotSatisfiableError(StillhouseError):
    """The requested range lies outside the content."""

    code = "range_not_satisfiable"
    http_status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


class InternalError(StillhouseError):
    """Something broke on our side; the service's log has the details under this request id."""

    code = "internal_error"
    http_status = HTTPStatus.INTERNAL_SERVER_ERROR
    blame = Blame.SYSTEM
    retryable = True


class UnavailableError(StillhouseError):
    """A part of the service is out of reach; try again in a moment."""

    code = "unavailable"
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    blame = Blame.INFRASTRUCTURE
    retryable = True


class WebhookUrlRefusedError(StillhouseError):
    """Webhooks are sent over https, to addresses on the internet; this URL is not one of these."""

    code = "webhook_url_refused"


class TooManyWebhooksError(StillhouseError):
    """The owner has as many webhooks as there may be; delete one first."""

    code = "too_many_webhooks"
    http_status = HTTPStatus.CONFLICT


class WebhookDisabledError(StillhouseError):
    """Nothing is sent to a webhook that is disabled; enable it first."""

    code = "webhook_disabled"
    http_status = HTTPStatus.CONFLICT


# Told by the API: artifacts


class UnknownArtifactError(StillhouseError):
    """No artifact of yours has this id; upload the file first."""

    code = "unknown_artifact"


class WrongArtifactKindError(StillhouseError):
    """The artifact is of another kind than this field needs."""

    code = "wrong_artifact_kind"


class ArtifactInUseError(StillhouseError):
    """A job that has not ended needs this artifact."""

    code = "artifact_in_use"
    http_status = HTTPStatus.CONFLICT


class UploadIncompleteError(StillhouseError):
    """The upload ended before the declared Content-Length; send it again."""

    code = "upload_incomplete"
    http_status = HTTPStatus.BAD_REQUEST
    retryable = True


class UploadTooLargeError(StillhouseError):
    """The upload is larger than this service accepts."""

    code = "upload_too_large"
    http_status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class DigestMismatchError(StillhouseError):
    """The bytes that arrived do not have the declared sha256; send them again."""

    code = "digest_mismatch"
    retryable = True


class UnknownContentError(StillhouseError):
    """You have no artifact of this kind and format with these bytes; send the bytes in the body."""

    code = "unknown_content"


class StorageFullError(StillhouseError):
    """There is no room left to store this; nothing was kept. Delete artifacts or ask the operator for room."""

    code = "storage_full"
    http_status = HTTPStatus.INSUFFICIENT_STORAGE
    blame = Blame.INFRASTRUCTURE
    retryable = True


class EmptyUploadError(StillhouseError):
    """The upload has no bytes."""

    code = "empty_upload"


# Told by the API: resumable uploads


class TusVersionError(StillhouseError):
    """Resumable uploads speak tus 1.0.0; send `Tus-Resumable: 1.0.0`."""

    code = "unsupported_tus_version"
    http_status = HTTPStatus.PRECONDITION_FAILED


class UnsupportedMediaTypeError(StillhouseError):
    """Bytes of a resumable upload come as `Content-Type: application/offset+octet-stream`."""

    code = "unsupported_media_type"
    http_status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class UploadOffsetError(StillhouseError):
    """Upload-Offset is not where the upload goes on; ask for that with HEAD."""

    code = "upload_offset_mismatch"
    http_status = HTTPStatus.CONFLICT


class UploadLockedError(StillhouseError):
    """Another request adds to this upload; try again in a moment, from where HEAD says that it goes on."""

    code = "upload_locked"
    http_status = HTTPStatus.LOCKED
    retryable = True


class UploadGoneError(StillhouseError):
    """The upload has ended and takes no more bytes."""

    code = "upload_gone"
    http_status = HTTPStatus.GONE


class UnsupportedChecksumError(StillhouseError):
    """The algorithm of Upload-Checksum is not known here; Tus-Checksum-Algorithm lists those that are."""

    code = "unsupported_checksum"
    http_status = HTTPStatus.BAD_REQUEST


class ChecksumMismatchError(StillhouseError):
    """The bytes of this request do not have the checksum of Upload-Checksum; send them again."""

    code = "checksum_mismatch"
    http_status = 460  # the protocol's own
    retryable = True


class TooManyPartsError(StillhouseError):
    """The upload came in too many pieces; begin a new one and send larger ones."""

    code = "too_many_parts"


# Told by the API: what an upload holds


class MalformedSafetensorsError(StillhouseError):
    """The file is not valid safetensors."""

    code = "malformed_safetensors"


class MalformedOnnxError(StillhouseError):
    """The file is not an ONNX model that this service can read."""

    code = "malformed_onnx"


class PickleRefusedError(StillhouseError):
    """The file is a Python pickle, which runs code when opened; save the weights alone, best as safetensors."""

    code = "pickle_refused"


class MalformedPytorchError(StillhouseError):
    """The file is not a checkpoint as torch.save writes it."""

    code = "malformed_pytorch"


class MalformedIdxError(StillhouseError):
    """The file is not valid IDX."""

    code = "malformed_idx"


class MalformedNpzError(StillhouseError):
    """The file is not a valid NPZ archive."""

    code = "malformed_npz"


class MalformedParquetError(StillhouseError):
    """The file is not valid Parquet."""

    code = "malformed_parquet"


class MalformedCsvError(StillhouseError):
    """The file is not a CSV table with a header row in UTF-8."""

    code = "malformed_csv"


class MalformedArchiveError(StillhouseError):
    """The file is not a sound tar or zip archive."""

    code = "malformed_archive"


class UnsafeArchiveError(StillhouseError):
    """The archive has a member that is no plain file inside it: a path outside, a link, a device, or encrypted."""

    code = "unsafe_archive"


class ArchiveTooLargeError(StillhouseError):
    """The archive has more members, or unpacks to more bytes, than this service reads."""

    code = "archive_too_large"


class MalformedDatasetError(StillhouseError):
    """The archive does not hold what `save_to_disk` of Hugging Face `datasets` writes."""

    code = "malformed_dataset"


class EmptyDataError(StillhouseError):
    """The data has no samples."""

    code = "empty_data"


class LabelCountMismatchError(StillhouseError):
    """There are not as many labels as inputs."""

    code = "label_count_mismatch"


class UnknownArrayError(StillhouseError):
    """The NPZ file has no array of this name."""

    code = "unknown_array"


class UnusableArrayError(StillhouseError):
    """The array's shape or type cannot be used here."""

    code = "unusable_array"


class UnknownColumnError(StillhouseError):
    """The table has no column of this name."""

    code = "unknown_column"


class UnusableColumnError(StillhouseError):
    """The column's type cannot be used here."""

    code = "unusable_column"


class UnknownFolderError(StillhouseError):
    """The archive has no folder of this name with samples in it."""

    code = "unknown_folder"


class UnusableLabelsError(StillhouseError):
    """The labels are not what the task learns from."""

    code = "unusable_labels"


class UnknownArchitectureError(StillhouseError):
    """The checkpoint does not tell its architecture; give teacher.architecture."""

    code = "unknown_architecture"


# Told by preflight, before any training


class UnknownModelError(StillhouseError):
    """The library has no model of this name."""

    code = "unknown_model"


class UnbuildableModelError(StillhouseError):
    """The model cannot be built with this config."""

    code = "unbuildable_model"


class LibraryMissingError(StillhouseError):
    """The library that this model comes from is not installed: pip install 'stillhouse[vision]'."""

    code = "library_missing"
    blame = Blame.INFRASTRUCTURE


class UnderivableStudentError(StillhouseError):
    """The student cannot be derived from this teacher."""

    code = "underivable_student"


class OutputWidthMismatchError(StillhouseError):
    """The student's outputs are not as many as the classes."""

    code = "output_width_mismatch"


class InputShapeMismatchError(StillhouseError):
    """The model's input shape is not that of the data."""

    code = "input_shape_mismatch"


class WeightsMismatchError(StillhouseError):
    """The weights do not belong to the named architecture."""

    code = "weights_mismatch"


class NonFiniteWeightsError(StillhouseError):
    """The weights contain NaN or infinite values."""

    code = "non_finite_weights"


class NonFiniteInputsError(StillhouseError):
    """The inputs contain NaN or infinite values."""

    code = "non_finite_inputs"


class MissingValuesError(StillhouseError):
    """A value is missing, and the spec does not say what to do then."""

    code = "missing_values"


class MalformedImageError(StillhouseError):
    """An image is cut short, damaged, or of a format that is not read."""

    code = "malformed_image"


class ImageTooLargeError(StillhouseError):
    """An image has more pixels than this service decodes."""

    code = "image_too_large"


class MixedImageShapesError(StillhouseError):
    """The images are not all of one shape; set data.image.size and data.image.channels."""

    code = "mixed_image_shapes"


class UnknownLabelError(StillhouseError):
    """A label is not the name of a class."""

    code = "unknown_label"


class UnusableSoftLabelsError(StillhouseError):
    """The soft labels do not have the shape or the values of their kind."""

    code = "unusable_soft_labels"


class SingleClassError(StillhouseError):
    """All labels are the same, so there is nothing to learn."""

    code = "single_class"


class LabelOutOfRangeError(StillhouseError):
    """A label is not the number of a class, or neither 0 nor 1 where several may hold."""

    code = "label_out_of_range"


class MissingSoftLabelsError(StillhouseError):
    """The teacher's answers should come with the data, but data.train names none; give data.train.soft_labels."""

    code = "missing_soft_labels"


class TeacherFailedError(StillhouseError):
    """The teacher cannot answer."""

    code = "teacher_failed"


class SplitTooSmallError(StillhouseError):
    """The training split is too small to hold out a validation split."""

    code = "split_too_small"


class UnknownLayerError(StillhouseError):
    """The model has no layer of this name."""

    code = "unknown_layer"


class LayerNotReachedError(StillhouseError):
    """The model has this layer, but does not use it when it answers."""

    code = "layer_not_reached"


class IncompatibleLayersError(StillhouseError):
    """The outputs of the two layers cannot be compared by this term."""

    code = "incompatible_layers"


class DeviceUnavailableError(StillhouseError):
    """The worker does not have the device that the job asks for."""

    code = "device_unavailable"
    blame = Blame.INFRASTRUCTURE


# Told while running


class DivergedError(StillhouseError):
    """The loss became NaN or infinite; lower the learning rate or clip the gradient."""

    code = "diverged"


class OutOfMemoryError(StillhouseError):
    """The trainer ran out of memory; lower training.batch_size or choose a smaller student."""

    code = "out_of_memory"


class OutOfDeviceMemoryError(OutOfMemoryError):
    """The GPU ran out of memory; lower training.batch_size, choose a smaller student, or let fewer jobs share it."""

    code = "out_of_device_memory"


class NonFiniteSoftLabelsError(StillhouseError):
    """The teacher's answer about a sample is NaN or infinite."""

    code = "non_finite_soft_labels"


class ExportMismatchError(StillhouseError):
    """The exported model, loaded again, does not answer as the trained one did."""

    code = "export_mismatch"
    blame = Blame.SYSTEM


class TrainerCrashedError(StillhouseError):
    """The trainer ended without a last word; GET /jobs/{id}/logs shows what it printed."""

    code = "trainer_crashed"
    http_status = HTTPStatus.INTERNAL_SERVER_ERROR
    blame = Blame.SYSTEM
    retryable = True


class WorkerLostError(StillhouseError):
    """The workers that ran this job were lost too often."""

    code = "worker_lost"
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    blame = Blame.INFRASTRUCTURE
    retryable = True


class TrainerStalledError(StillhouseError):
    """The trainer fell silent too often; GET /jobs/{id}/logs shows what it printed, and where it stood."""

    code = "trainer_stalled"
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    blame = Blame.INFRASTRUCTURE
    retryable = True


class MaxRuntimeExceededError(StillhouseError):
    """The job has run for as long as it may; raise max_runtime, or train for fewer epochs."""

    code = "max_runtime_exceeded"


class SandboxUnavailableError(StillhouseError):
    """The worker must confine its trainers, and its system cannot do all of it."""

    code = "sandbox_unavailable"
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    blame = Blame.INFRASTRUCTURE
    retryable = True


class StagingFailedError(StillhouseError):
    """An input could not be brought to the worker intact."""

    code = "staging_failed"
    http_status = HTTPStatus.SERVICE_UNAVAILABLE
    blame = Blame.INFRASTRUCTURE
    retryable = True
