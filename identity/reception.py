"""The counter: what one enrolment call does from the terminal's first byte to the permit.

Accept, settle, issue. Each step is durable and repeatable on its own, so a retry with the same
idempotency key continues where the last attempt stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from devices.types import Principal, Role
from identity.enrolment import EnrolCommand, Enrolment
from identity.errors import StateError, WithheldError
from identity.images import photo_of, sample_of
from identity.lookups import check_sample_count
from identity.permits import PermitDesk, ShownPermit
from identity.types import Application, Once
from identity.uploads import UploadDesk

ASKED_WITH = "EnrolmentService.GetApplication"


@dataclass(frozen=True)
class Answer:
    application: Application
    permit: ShownPermit | None


class Reception:
    def __init__(
        self,
        enrolment: Enrolment,
        desk: PermitDesk,
        uploads: UploadDesk,
        finger_images: bool = False,
    ) -> None:
        """
        Args:
            finger_images: whether fingers are extracted from uploaded images here.
        """
        self._enrolment = enrolment
        self._desk = desk
        self._uploads = uploads
        self._finger_images = finger_images

    def enrol(
        self,
        command: EnrolCommand,
        once: Once,
        caller: Principal,
        require_time: Callable[[], None],
    ) -> Answer:
        """Accept, settle and, if asked for, issue.

        Args:
            require_time: raises when the caller's deadline has passed. Asked between the steps: a
                caller who has gone is not worth a search, and what is accepted is settled anyway
                by a retry or at the next start.

        Raises:
            StateError: UPLOAD_MISSING, IMAGES_NOT_TAKEN.
            InvalidRequestError: PORTRAIT_INVALID.
        """
        owner = uploader(caller)
        # What was accepted before has used its uploads up: a retry must not ask for them again.
        pictured = command.portrait or command.uploads
        if pictured and self._enrolment.earlier(once) is None:
            command = self._with_pictures(command, owner, require_time)
        application_id = self._enrolment.accept(command, once, caller.station_id, owner)
        require_time()
        application = self._enrolment.settle(application_id)
        require_time()
        return Answer(application, self._desk.issue_for(application))

    def application(self, application_id: str, caller: Principal) -> Answer:
        """An application as it stands. Terminals see those of their own station only.

        A permit that an operator is shown this way is a disclosure like any other.
        """
        application = self._enrolment.application(application_id)
        if caller.role is Role.TERMINAL and caller.station_id != application.station_id:
            raise WithheldError("APPLICATION_UNKNOWN", f"no application {application_id!r}")
        shown = self._desk.issue_for(application)
        if shown is not None and caller.role is Role.OPERATOR:
            shown = self._desk.show(shown.permit.permit_number, str(caller), ASKED_WITH)
        return Answer(application, shown)

    def _with_pictures(
        self, command: EnrolCommand, owner: str, require_time: Callable[[], None]
    ) -> EnrolCommand:
        """With the photo and the samples that portrait and uploaded pictures become."""
        if command.images and not self._finger_images:
            raise StateError(
                "IMAGES_NOT_TAKEN",
                "this register takes fingers as records only; extract them on the terminal",
            )
        if command.images:
            check_sample_count(len(command.samples) + len(command.images))
        # All of them first: a terminal is told what is missing before anything is worked out.
        contents = [self._uploads.content(owner, sha256) for sha256 in command.uploads]
        particulars, samples = command.particulars, list(command.samples)
        portrait = contents.pop(0) if command.portrait_sha256 else command.portrait
        if portrait:
            particulars = replace(particulars, photo=photo_of(portrait))
        for image, content in zip(command.images, contents, strict=True):
            require_time()
            samples.append(sample_of(content, image.position, image.resolution_ppi))
        return replace(command, particulars=particulars, samples=tuple(samples))


def uploader(caller: Principal) -> str:
    """Whose an upload is: the terminal's, whoever works at it."""
    return f"{caller.station_id}/{caller.id}"
