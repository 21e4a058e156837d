"""What happens when something on the page is clicked."""

import html
from collections.abc import Sequence
from typing import Any

import gradio as gr

from frfsr.errors import UserError
from frfsr.page import pictures
from frfsr.page.sessions import Session, Sessions
from frfsr.page.work import Job, Limits, Networks, Outcome, enlarge, open_photo, open_to_enlarge, thumbnail
from frfsr.upscaling.options import duration

PREVIEW = 400  # pixels
MATCH_HELP = "Click in the result: the place in a reference from which its texture comes is ringed."


class Handlers:
    """What happens when something is clicked; every answer is a value for each output of the event."""

    def __init__(self, sessions: Sessions, networks: Networks, limits: Limits):
        self.sessions, self.networks, self.limits = sessions, networks, limits

    def session(self, request: gr.Request) -> Session:
        """Whose click it is."""
        return self.sessions.get(str(request.session_hash))

    def look_at_photo(self, path: str | None, request: gr.Request) -> tuple[Any, Any]:
        """Say what the photo is, or what is wrong with it."""
        session = self.session(request)
        if path is None:
            return shown_if(""), gr.Image(visible=False, value=None)
        session.files.add(path)
        try:
            photo, notes = open_to_enlarge(path, self.limits)
        except UserError as error:
            return shown_if(line(str(error), "bad")), gr.Image(visible=False, value=None)
        height, width, channels = photo.pixels.shape
        kind = ("grey", "grey with alpha", "colour", "colour with alpha")[channels - 1]
        told = f"{width}×{height} → {4 * width}×{4 * height} pixels, {kind}, {8 * photo.pixels.itemsize} bits"
        image = session.store(thumbnail(photo.rgb8(), PREVIEW), ".jpg")
        return shown_if(lines([told], "good") + lines(notes, "note")), gr.Image(visible=True, value=image)

    def look_at_references(self, paths: list[str] | None, request: gr.Request) -> tuple[Any, Any]:
        """Show the references, or what is wrong with them."""
        session, seen, bad, notes = self.session(request), [], [], []
        session.files |= set(paths or [])
        if paths and len(paths) > self.limits.references:
            bad.append(f"{len(paths)} references are more than {self.limits.references}: give fewer.")
            paths = paths[: self.limits.references]
        for path in paths or []:
            try:
                photo, said = open_photo(path, self.limits)
                notes += said
                seen.append(thumbnail(photo.rgb8(), PREVIEW))
            except UserError as error:
                bad.append(str(error))
        sheet = session.store(pictures.side_by_side(seen, PREVIEW // 2), ".jpg") if seen else None
        return shown_if(lines(bad, "bad") + lines(notes, "note")), gr.Image(visible=bool(seen), value=sheet)

    def run(
        self,
        photo: str | None,
        references: list[str] | None,
        strength: float,
        model: str,
        device: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (so gradio finds it)
    ) -> tuple:
        """Enlarge the photo and show everything of it.

        Args:
            photo: file of the photo.
            references: files of the references.
            strength: 0 ... 1.
            model: one that is offered.
            device: one that is offered.
            request: by which gradio tells whose session it is.
            progress: gradio's bar.

        Returns:
            A value for each part of the page.

        Raises:
            UserError: there is no photo, or `enlarge` refuses.
        """
        session = self.session(request)
        try:
            if photo is None:
                raise UserError("no photo: upload one, or try an example.")
            with Job(self.limits.seconds) as job:
                session.job = job
                progress(0, desc="loading the network")
                network = self.networks.get(model, device)
                progress(0, desc="looking for the views that match")
                outcome = enlarge(
                    photo,
                    references or [],
                    network,
                    strength,
                    folder=session.new_folder(),
                    limits=self.limits,
                    progress=lambda done, count: progress((done, count), desc="enlarging", unit="tiles"),
                )
        except UserError as error:
            return line(str(error), "bad"), *[gr.skip()] * 8
        session.finish(outcome)
        return self.show(session, outcome)

    def show(self, session: Session, outcome: Outcome) -> tuple:
        """All outputs of a run."""
        before, after = (session.store(pictures.picture(p), ".png", outcome) for p in (outcome.before, outcome.after))
        height, width = outcome.after.shape[:2]
        told = f"{width}×{height} pixels in {duration(outcome.seconds)}: {outcome.file.name}"
        warned = lines(outcome.report.warnings, "note")
        map_of_scores = pictures.confidence(outcome)
        small = session.store(thumbnail(outcome.after, pictures.SIDE).convert("RGB"), ".jpg", outcome)
        references = [
            (session.store(thumbnail(reference.pixels, pictures.SIDE), ".jpg", outcome), reference.name)
            for reference in outcome.references
        ]
        help_line = MATCH_HELP if outcome.matches is not None else "Nothing was matched: no reference was used."
        return (
            line(told, "good") + warned,
            (before, after),
            small,
            gr.Gallery(value=references, selected_index=0 if references else None),
            line(help_line, "good"),
            None,
            map_of_scores and session.store(map_of_scores, ".jpg", outcome),
            gr.DownloadButton(f"Download {outcome.file.name}", value=str(outcome.file), visible=True),
            report_table(outcome),
        )

    def click(self, request: gr.Request, event: gr.SelectData) -> tuple:
        """Show where the clicked place was found."""
        session = self.session(request)
        outcome = session.outcome
        if outcome is None or outcome.matches is None:
            return line("Nothing was matched: enlarge a photo with a reference first.", "note"), *[gr.skip()] * 3
        image = thumbnail(outcome.after, pictures.SIDE)
        x, y = event.index
        view = pictures.match_view(outcome, x / image.width, y / image.height)
        references = [(session.store(picture, ".jpg", outcome), name) for picture, name in view.references]
        return (
            line(view.text, "good"),
            session.store(view.result, ".jpg", outcome),
            gr.Gallery(value=references, selected_index=view.winner),
            session.store(view.closeups, ".png", outcome),
        )

    def cancel(self, request: gr.Request) -> str:
        """Stop the session's run."""
        session = self.session(request)
        if session.job:
            session.job.cancelled.set()
        return line("cancelled.", "note")

    def leave(self, request: gr.Request) -> None:
        """Forget the session."""
        self.sessions.end(str(request.session_hash))


def report_table(outcome: Outcome) -> str:
    """What was used of each reference, as Markdown."""
    report = outcome.report
    if not report.views:
        return "\n\n".join(report.notes)
    rows = ["| reference | as the network saw it | matched places |", "|---|---|---|"]
    for view in report.views:
        name = html.escape(outcome.references[view.reference].name).replace("|", "&#124;")
        rows.append(f"| {name} | {pictures.seen_as(view)} | {view.share:.0%} |")
    told = [f"Mean confidence {report.confidence:.2f} of 1.", *(html.escape(note) for note in report.notes)]
    return "\n".join(rows) + "\n\n" + "  \n".join(told)


def shown_if(text: str) -> gr.HTML:
    """A message that takes no room when it is empty."""
    return gr.HTML(text, visible=bool(text))


def line(text: str, kind: str) -> str:
    """One line of a message: good, note or bad."""
    role = "alert" if kind == "bad" else "status"
    return f'<div class="line {kind}" role="{role}">{html.escape(text)}</div>'


def lines(texts: Sequence[str], kind: str) -> str:
    """Several of them."""
    return "".join(line(text, kind) for text in texts)
