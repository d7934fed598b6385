"""A client of Touchstone's HTTP API. Needs httpx and nothing else of this project.

    from annotation.client import Touchstone

    with Touchstone("https://touchstone.example.org", token="…") as site:
        project = site.project("helpful")
        project.add_prompts([{"messages": [{"role": "user", "content": "Hello"}]}])
        for judgment in project.judgments(live=True):
            print(judgment["comparison"], judgment["preference"], judgment["strength"])

Make a token on your own page of the site. Whoever holds it may do what you may; it ends on the day that you chose.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict
from urllib.parse import quote

import httpx

_PROMPTS_A_CALL = 1000
_ATTEMPTS = 5


class Message(TypedDict):
    role: str
    content: str


class RefusedError(Exception):
    """The site refused; `status` is the HTTP status, the text its sentence and `body` all that it said."""

    def __init__(self, status: int, sentence: str, body: Any = None) -> None:
        super().__init__(sentence)
        self.status, self.body = status, body


@dataclass(frozen=True)
class Item:
    """A comparison to judge, blind: `responses` stand from left to right."""

    assignment: str
    lease_expires_at: str
    messages: list[Message]
    responses: list[str]
    task: str
    lang: str


@dataclass(frozen=True)
class SingleResponse:
    """A response to mark by itself, blind."""

    rating: str
    lease_expires_at: str
    messages: list[Message]
    response: str
    task: str
    lang: str


@dataclass(frozen=True)
class Rewrite:
    """A prompt to write a response for, blind; `responses` are those that nobody found good."""

    task: int
    lease_expires_at: str
    messages: list[Message]
    responses: list[str]
    lang: str


class Touchstone:
    """A site, as one person with a token sees it. Usable as a context manager.

    Calls that can be repeated without harm are: after a lost connection, a 502, 503 or 504, or a 429, up to five
    times with growing pauses. Everything here can be, because the site recognises what it has already.
    """

    def __init__(self, url: str, token: str, *, timeout_seconds: float = 60.0) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/api/v1/",
            headers={"Authorization": f"Token {token}"},
            timeout=timeout_seconds,
        )

    def __enter__(self) -> Touchstone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def me(self) -> dict[str, Any]:
        """The token's owner's own progress, agreement and streak."""
        return self.call("GET", "me/").json()

    def projects(self) -> list[dict[str, Any]]:
        """The projects that the token's owner may see."""
        return self.call("GET", "projects/").json()

    def create_project(self, slug: str, name: str, **more: Any) -> Project:
        """Make a project, or give the one that has this slug; for staff."""
        self.call("POST", "projects/", json={"slug": slug, "name": name, **more})
        return Project(self, slug)

    def project(self, slug: str) -> Project:
        return Project(self, slug)

    def judge(self, item: Item | str, choice: str, *, judgment: str | None = None, **more: Any) -> dict[str, Any]:
        """Give a verdict. choice: −3 … 3 as a text (negative: left), "left", "right" or "neither"; `more` as in
        the API's schema (note, chips, ratings, ranking …). `judgment` is an id of the caller's: the same id twice is
        one vote."""
        assignment = item.assignment if isinstance(item, Item) else item
        body = {"judgment": judgment or str(uuid.uuid4()), "choice": choice, **more}
        return self.call("POST", f"assignments/{assignment}/judgment/", json=body).json()

    def skip(self, item: Item | str, reason: str = "") -> None:
        """Give a comparison back; somebody else gets it."""
        assignment = item.assignment if isinstance(item, Item) else item
        self.call("POST", f"assignments/{assignment}/skip/", json={"reason": reason})

    def rate(
        self,
        item: SingleResponse | str,
        *,
        intent: bool,
        accuracy: bool,
        language: bool,
        safety: bool,
        is_satisfied: bool,
        **more: Any,
    ) -> dict[str, Any]:
        """Mark a response: what it met, and whether whoever asked would be content. Other marks later correct these;
        `more`: note, guideline_version, decided_in_ms."""
        rating = item.rating if isinstance(item, SingleResponse) else item
        marks = {"intent": intent, "accuracy": accuracy, "language": language, "safety": safety}
        body = {**marks, "is_satisfied": is_satisfied, **more}
        return self.call("POST", f"ratings/{rating}/marks/", json=body).json()

    def skip_rating(self, item: SingleResponse | str) -> None:
        """Give a response back unmarked; somebody else gets it."""
        rating = item.rating if isinstance(item, SingleResponse) else item
        self.call("POST", f"ratings/{rating}/skip/")

    def conversation(self, conversation: str) -> Conversation:
        """A conversation of the token's owner, by its id."""
        return Conversation(self, self.call("GET", f"conversations/{conversation}/").json())

    def call(self, method: str, path: str, *, attempts: int = _ATTEMPTS, **options: Any) -> httpx.Response:
        """One request; raises RefusedError with the site's sentence. attempts: 1 for what must not be done twice.

        content: an open file, which is sent as it is read, and from its beginning at each attempt.
        """
        for attempt in range(1, attempts + 1):
            if (file := options.get("content")) is not None:
                file.seek(0)
            try:
                answer = self._http.request(method, path, **options)
            except httpx.TransportError:
                if attempt == attempts:
                    raise
                time.sleep(0.25 * 2**attempt)
                continue
            if answer.status_code not in (429, 502, 503, 504) or attempt == attempts:
                break
            time.sleep(_pause(answer, attempt))
        if answer.is_error:
            raise _refusal(answer)
        return answer

    @contextmanager
    def stream(self, path: str) -> Iterator[httpx.Response]:
        """What is too large for the memory, while it comes; raises RefusedError."""
        with self._http.stream("GET", path) as answer:
            if answer.is_error:
                answer.read()
                raise _refusal(answer)
            yield answer

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every row of a paged list, fetched page by page."""
        answer = self.call("GET", path, params={"page_size": 1000, **params}).json()
        while True:
            yield from answer["results"]
            if not answer["next"]:
                return
            answer = self.call("GET", answer["next"]).json()


def _pause(answer: httpx.Response, attempt: int) -> float:
    asked = answer.headers.get("retry-after", "")
    return min(60.0, float(asked)) if asked.isdigit() else 0.25 * 2**attempt


def _refusal(answer: httpx.Response) -> RefusedError:
    try:
        body = answer.json()
    except ValueError:
        return RefusedError(answer.status_code, f"HTTP {answer.status_code}")
    said = body["detail"] if isinstance(body, dict) and isinstance(body.get("detail"), str) else str(body)
    return RefusedError(answer.status_code, said, body)


class Project:
    """One project of a site."""

    def __init__(self, site: Touchstone, slug: str) -> None:
        self.site, self.slug = site, slug
        self._path = f"projects/{slug}/"

    def info(self) -> dict[str, Any]:
        return self.site.call("GET", self._path).json()

    def add_member(self, username: str, **place: Any) -> dict[str, Any]:
        """Let somebody judge here, or review, or administer. place: role, languages, skills; of somebody who is there
        already only what is given is changed."""
        return self.site.call("POST", self._path + "members/", json={"username": username, **place}).json()

    def members(self) -> list[dict[str, Any]]:
        return self.site.call("GET", self._path + "members/").json()

    def change_member(self, username: str, **place: Any) -> dict[str, Any]:
        """place: role, languages, skills, qualification; what is not given is left as it is."""
        return self.site.call("PATCH", f"{self._path}members/{username}/", json=place).json()

    def invite(self, **place: Any) -> str:
        """A link by which one person can join; place: role, languages, skills, email, days. It is shown this once."""
        return self.site.call("POST", self._path + "invitations/", json=place).json()["link"]

    # ── In ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def add_prompts(self, prompts: Iterable[dict[str, Any]]) -> int:
        """Add prompts, `{"messages": […], "task"?, "lang"?, "skill"?, "topic"?, "tags"?}`; gives how many are new."""
        return sum(answer["new"] for answer in self._post_in_parts("prompts/", prompts))

    def add_responses(self, responses: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add responses, `{"prompt": id, "source": name, "text", "sample_index"?}`; gives them with their ids."""
        return list(itertools.chain.from_iterable(self._post_in_parts("responses/", responses)))

    def add_comparisons(self, comparisons: Iterable[Iterable[int]]) -> int:
        """Put responses, by id, before the annotators: two to compare, three to nine to rank."""
        rows = ({"responses": list(ids)} for ids in comparisons)
        return sum(answer["new"] for answer in self._post_in_parts("comparisons/", rows))

    def set_uncertainties(self, uncertainties: Mapping[int, float], *, at_least: float = 0.8) -> int:
        """Say how unsure a reward model is about comparisons, by id, 0 … 1: people judge first what it cannot tell
        apart. Gives how many of them the project has."""
        rows = iter([{"comparison": pk, "uncertainty": value} for pk, value in uncertainties.items()])
        known = 0
        while part := list(itertools.islice(rows, _PROMPTS_A_CALL)):
            body = {"uncertainties": part, "at_least": at_least}
            known += self.site.call("POST", self._path + "uncertainties/", json=body).json()["comparisons"]
        return known

    def import_file(
        self, path: Path, *, format_name: str = "", columns: Mapping[str, str] | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Send a file of prompts or judged comparisons and wait until it is in; the answer counts what was made, and
        `reasons` names the first rows that were left out.

        columns: what is in which, {"prompt": "question", "response_a": "left", …}, where it is in no known format.
        dry_run: store nothing; say what would be made, with the first rows under `preview`.
        """
        asked = {
            **(columns or {}),
            **({"format": format_name} if format_name else {}),
            **_as_query({"dry_run": dry_run}),
        }
        with path.open("rb") as file:
            sent = self.site.call(
                "POST",
                self._path + "import/",
                params=asked,
                content=file,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name, safe='')}",
                },
            ).json()
        done = self.wait_for(sent)
        return done["result"] | ({"preview": sent["preview"]} if dry_run else {})

    def wait_for(self, job: dict[str, Any], *, every_seconds: float = 1.0) -> dict[str, Any]:
        """A data job when it has finished; raises RefusedError with its sentence where it failed or was stopped."""
        while job["status"] in ("queued", "running"):
            time.sleep(every_seconds)
            job = self.site.call("GET", f"{self._path}data-jobs/{job['id']}/").json()
        if job["status"] != "done":
            raise RefusedError(422, job["error"] or f"The work was {job['status']}.")
        return job

    def _post_in_parts(self, path: str, rows: Iterable[dict[str, Any]]) -> Iterator[Any]:
        rows = iter(rows)
        while part := list(itertools.islice(rows, _PROMPTS_A_CALL)):
            yield self.site.call("POST", self._path + path, json=part).json()

    # ── Judging ──────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self) -> list[Item]:
        """What the token's owner holds, topped up to two comparisons; renews the leases."""
        return [Item(**item) for item in self.site.call("POST", self._path + "claim/").json()]

    def claim_rating(self) -> SingleResponse | None:
        """The response that the token's owner has to mark, or the next one, with its lease renewed; None: no more."""
        answer = self.site.call("POST", self._path + "ratings/claim/")
        return SingleResponse(**answer.json()) if answer.status_code == 200 else None

    # ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def claim_rewrite(self, *, after: int = 0) -> Rewrite | None:
        """The prompt that the token's owner has to write for, or the next one; None: nothing is left.

        after: a task that was skipped; those behind it come first.
        """
        answer = self.site.call("POST", self._path + "rewrites/claim/", json={"after": after})
        return Rewrite(**answer.json()) if answer.status_code == 200 else None

    def save_rewrite(self, task: Rewrite, text: str, *, start: int | None = None, seconds: int = 0) -> None:
        """start: which of `task.responses` the text was made of; None: none of them."""
        body = {"text": text, "start": start, "seconds": seconds}
        self.site.call("POST", f"{self._path}rewrites/{task.task}/text/", json=body)

    def skip_rewrite(self, task: Rewrite) -> None:
        """Leave it to somebody else."""
        self.site.call("POST", f"{self._path}rewrites/{task.task}/skip/")

    def drop_rewrite(self, task: Rewrite, reason: str) -> None:
        """Close it for good without a text."""
        self.site.call("POST", f"{self._path}rewrites/{task.task}/drop/", json={"reason": reason})

    def closed_rewrites(self) -> Iterator[dict[str, Any]]:
        """What was written and dropped, the newest task first: one's own, and to reviewers everybody's."""
        return self.site.pages(self._path + "rewrites/closed/")

    def reopen_rewrite(self, task: int) -> dict[str, Any]:
        """Undo a text or a drop. Gives is_yours (false: it was another's, and is open to everybody) and the text."""
        return self.site.call("POST", f"{self._path}rewrites/{task}/reopen/").json()

    # ── Settling ─────────────────────────────────────────────────────────────────────────────────────────────────

    def waiting(self) -> Iterator[dict[str, Any]]:
        """What waits for a reviewer: comparisons that people disagree about, flagged or skipped."""
        return self.site.pages(self._path + "waiting/")

    def adjudicate(self, comparison: int, preference: str, **more: Any) -> dict[str, Any]:
        """Settle it with a verdict in content order; more: strength, ranking, note, based_on."""
        body = {"comparison": comparison, "preference": preference, **more}
        return self.site.call("POST", self._path + "adjudications/", json=body).json()

    def leave_undecided(self, comparison: int) -> None:
        """Let the votes count as they are; open flags are resolved."""
        self.site.call("POST", f"{self._path}comparisons/{comparison}/leave/")

    def withdraw(self, comparison: int) -> None:
        """Hand it out no more; its votes stay."""
        self.site.call("POST", f"{self._path}comparisons/{comparison}/withdraw/")

    def restore(self, comparison: int) -> None:
        """Hand a withdrawn one out again."""
        self.site.call("POST", f"{self._path}comparisons/{comparison}/restore/")

    # ── Conversations ────────────────────────────────────────────────────────────────────────────────────────────

    def start_conversation(
        self, text: str = "", *, prompt: int | None = None, sources: Iterable[str] = (), task: str = "", lang: str = ""
    ) -> Conversation:
        """Start with a message, or with a prompt of the project by its id.

        sources: names of those whose responses the caller posts itself (admins); without, models are drawn and asked.
        """
        body = {"conversation": str(uuid.uuid4()), "text": text, "prompt": prompt, "task": task, "lang": lang}
        answer = self.site.call("POST", self._path + "conversations/", json={**body, "sources": list(sources)})
        return Conversation(self.site, answer.json())

    def conversations(self) -> Iterator[dict[str, Any]]:
        """Those of the token's owner, newest first."""
        return self.site.pages(self._path + "conversations/")

    # ── Out ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def prompts(self, **filters: str) -> Iterator[dict[str, Any]]:
        """filters: task, lang, skill, topic, tag, query (words), state, batch, archived."""
        return self.site.pages(self._path + "prompts/", **filters)

    def responses(self, **filters: Any) -> Iterator[dict[str, Any]]:
        return self.site.pages(self._path + "responses/", **filters)

    def comparisons(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """filters: prompt, lang, skill, state, batch."""
        return self.site.pages(self._path + "comparisons/", **filters)

    def judgments(self, *, live: bool = False, **filters: Any) -> Iterator[dict[str, Any]]:
        return self.site.pages(self._path + "judgments/", live=str(live).lower(), **filters)

    def ratings(self, *, live: bool = False, **filters: Any) -> Iterator[dict[str, Any]]:
        """What people marked of single responses; filters: study, response."""
        return self.site.pages(self._path + "ratings/", live=str(live).lower(), **filters)

    def turns(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Conversation turns with their typed feedback."""
        return self.site.pages(self._path + "turns/", **filters)

    def events(self, **filters: Any) -> Iterator[dict[str, Any]]:
        return self.site.pages(self._path + "events/", **filters)

    def agreement(self, *, humans_only: bool = False) -> dict[str, Any]:
        return self.site.call(
            "GET", self._path + "agreement/", params={"humans_only": str(humans_only).lower()}
        ).json()

    def progress(self) -> dict[str, Any]:
        """Judgments an hour and a day, by whom, the time still to go, how clear the votes are, who is stuck."""
        return self.site.call("GET", self._path + "progress/").json()

    def annotators(self) -> list[dict[str, Any]]:
        """How each person judges."""
        return self.site.call("GET", self._path + "annotators/").json()["annotators"]

    def annotator(self, annotator: int, *, by: str = "week") -> dict[str, Any]:
        """One person's figures with their drift, by "week" or by "hundred" votes."""
        return self.site.call("GET", f"{self._path}annotators/{annotator}/", params={"by": by}).json()

    def aggregation(self) -> dict[str, Any]:
        """Dawid and Skene's estimate beside the majority."""
        return self.site.call("GET", self._path + "aggregation/").json()

    def leaderboard(self, *, ties: str = "half", humans_only: bool = False, **choices: str) -> list[dict[str, Any]]:
        """choices: voters, method, interval, category, language and style, as the API takes them."""
        params = {"ties": ties, "humans_only": str(humans_only).lower(), **choices}
        return self.site.call("GET", self._path + "leaderboard/", params=params).json()["rows"]

    def export(self, kind: str, out: Path, **rules: Any) -> dict[str, Any]:
        """Write the training rows of one kind to a .jsonl or .parquet file; gives rows, prompts, sha256 and dropped:
        how many judged pairs gave no row, by reason.

        rules: humans_only, axis, max_spread, min_strength, drop_near_identical, drop_unfinished, drop_model_names.
        """
        answer = self.site.call("GET", f"{self._path}export/{kind}{out.suffix}", params=_as_query(rules))
        out.write_bytes(answer.content)
        return json.loads(answer.headers["touchstone-exported"])


def _as_query(values: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}


class Conversation:
    """One conversation of the token's owner; `state` is how it stands, as in the API's schema."""

    def __init__(self, site: Touchstone, state: dict[str, Any]) -> None:
        self.site, self.state = site, state

    @property
    def id(self) -> str:
        return self.state["conversation"]

    @property
    def last(self) -> dict[str, Any]:
        """The last turn."""
        return self.state["turns"][-1]

    def refresh(self) -> Conversation:
        self.state = self.site.call("GET", f"conversations/{self.id}/").json()
        return self

    def ask(self, *, wait_seconds: float = 120.0) -> Conversation:
        """Have the models answer, and wait until both have, or one broke off."""
        end = time.monotonic() + wait_seconds
        self._send("ask/")
        pause = 0.1
        while self.last["state"] == "writing" and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2.0, 1.5 * pause)
            self.refresh()
        return self

    def post_responses(self, *responses: tuple[str, str]) -> Conversation:
        """Bring the responses oneself, each as (source, text)."""
        rows = [{"source": source, "text": text} for source, text in responses]
        return self._send("responses/", position=self.last["position"], responses=rows)

    def choose(self, choice: str, *, judgment: str | None = None, **more: Any) -> Conversation:
        """choice: as of a comparison, with the sides as in `last["sides"]`; before both are there, it waits."""
        judgment = judgment or str(uuid.uuid4())
        return self._send("choice/", position=self.last["position"], judgment=judgment, choice=choice, **more)

    def keep(self) -> Conversation:
        """Go on with the only response that came to its end."""
        return self._send("keep/", position=self.last["position"])

    def feedback(self, text: str, *, own_text: str = "", **more: Any) -> Conversation:
        """Answer what was kept: the next turn begins.

        own_text: the kept response as edited, or one's own where neither was good. `more`: scenario, deficiency_types,
        feedback_types, uptake, edit_seconds; without a scenario it is a further question.
        """
        return self._send("feedback/", position=self.last["position"], text=text, own_text=own_text, **more)

    def end(self, **uptake: str) -> Conversation:
        """uptake: whether the last responses took up the feedback, as A="yes", B="no"."""
        return self._send("end/", uptake=uptake)

    def reopen(self) -> Conversation:
        return self._send("reopen/")

    def _send(self, path: str, **body: Any) -> Conversation:
        self.state = self.site.call("POST", f"conversations/{self.id}/{path}", json=body).json()
        return self
