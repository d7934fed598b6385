"""Finds what identifies people in texts, and takes it out: addresses, numbers and nothing that only looks like them.

Whatever has a check digit is checked. A row of digits without one counts as a telephone number only if it is grouped
as its country groups them, or if the words before it speak of calling; sums, years and versions stay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import phonenumbers
from django.db import models
from django.utils.translation import gettext_lazy as _
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.cn import ric
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.se import personnummer
from stdnum.us import ssn


class PersonalKind(models.TextChoices):
    EMAIL = "email", _("e-mail addresses")
    PHONE = "phone", _("telephone numbers")
    IP = "ip", _("IP addresses")
    CARD = "card", _("card numbers")
    IBAN = "iban", _("bank accounts (IBAN)")
    NATIONAL_ID = "national_id", _("national id numbers")


STANDS_FOR = {
    PersonalKind.EMAIL: "[EMAIL]",
    PersonalKind.PHONE: "[PHONE]",
    PersonalKind.IP: "[IP]",
    PersonalKind.CARD: "[CARD]",
    PersonalKind.IBAN: "[IBAN]",
    PersonalKind.NATIONAL_ID: "[ID]",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """`start` and `end` count the characters of the text."""

    start: int
    end: int
    kind: PersonalKind


def find_personal_data(text: str, lang: str = "") -> list[Finding]:
    """Everything that is found, in order, without overlaps. `lang` says whose telephone numbers to expect."""
    found: list[Finding] = []
    if "@" in text:
        _add(found, PersonalKind.EMAIL, _emails(text))
    if _WORTH_A_LOOK.search(text):
        # The more a kind is checked, the earlier it takes its place.
        _add(found, PersonalKind.IBAN, _ibans(text))
        _add(found, PersonalKind.CARD, _cards(text))
        _add(found, PersonalKind.NATIONAL_ID, _national_ids(text))
        _add(found, PersonalKind.IP, _ips(text))
        _add(found, PersonalKind.PHONE, _phones(text, lang))
    return sorted(found)


def _add(found: list[Finding], kind: PersonalKind, spans: Iterator[tuple[int, int]]) -> None:
    for start, end in spans:
        if all(end <= other.start or start >= other.end for other in found):
            found.append(Finding(start, end, kind))


def mask_text(text: str, findings: Sequence[Finding]) -> str:
    """The text with every finding replaced by what stands for its kind."""
    parts, end = [], 0
    for finding in findings:
        parts += [text[end : finding.start], STANDS_FOR[finding.kind]]
        end = finding.end
    return "".join([*parts, text[end:]])


def moved(start: int, end: int, findings: Sequence[Finding]) -> tuple[int, int]:
    """Where a passage of the text lies once the findings are masked; one that touches a mask takes all of it in."""
    return _moved(start, findings, is_end=False), _moved(end, findings, is_end=True)


def _moved(position: int, findings: Sequence[Finding], *, is_end: bool) -> int:
    shift = 0
    for finding in findings:
        length = len(STANDS_FOR[finding.kind])
        if position >= finding.end:
            shift += length - (finding.end - finding.start)
        elif position > finding.start:
            return finding.start + shift + (length if is_end else 0)
        else:
            break
    return position + shift


# Most texts have no number of any length and need none of the rest: digits in a row or nearly so, the letters and
# digits of an Italian number, or of IPv6.
_WORTH_A_LOOK = re.compile(r"\d[\d .()/-]{5,}\d|[A-Z]{6}\d\d[A-Z]\d\d[A-Z]|[0-9A-Fa-f]:[0-9A-Fa-f:]{4}")

# ── E-mail ───────────────────────────────────────────────────────────────────────────────────────────────────────

# ASCII on purpose: Han characters stand right before an address, without a blank.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![A-Za-z0-9])"
)
# Kept for examples by RFC 2606.
_NOBODYS = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE)


def _emails(text: str) -> Iterator[tuple[int, int]]:
    for hit in _EMAIL.finditer(text):
        if not _NOBODYS.search(hit[1]) and not hit[0].startswith("git@"):
            yield hit.span()


# ── Numbers with check digits ────────────────────────────────────────────────────────────────────────────────────

# A number inside a sum, a decimal fraction or a longer name is not somebody's number.
_ALONE = r"(?<![A-Za-z0-9_.,*/=^+×÷-])"
_ENDS = r"(?![A-Za-z0-9_]|[.,]\d|\s*[*/=^+×÷])"
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9])")
_CARD = re.compile(
    _ALONE + r"(?:\d{13,19}|\d{4}([ -])(?:\d{4}\1){2}\d{4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{5})" + _ENDS
)
_CARD_SERIES = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|4[4-9]\d|5\d\d)\d{12}|35\d{14}|62\d{14,17}"
)
_NATIONAL: list[tuple[re.Pattern[str], Callable[[str], bool]]] = [
    (re.compile(_ALONE + pattern + _ENDS), check)
    for pattern, check in [
        (r"[1-9]\d{16}[\dXx]", ric.is_valid),  # China
        (r"\d{8}[- ]?[A-Z]", dni.is_valid),  # Spain
        (r"[XYZ]-?\d{7}-?[A-Z]", nie.is_valid),
        (r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", codicefiscale.is_valid),  # Italy
        (r"\d{6}[-+A]\d{3}[0-9A-Y]", hetu.is_valid),  # Finland
        (r"[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}", nir.is_valid),  # France
        (r"\d{3}\.\d{3}\.\d{3}-\d{2}", cpf.is_valid),  # Brazil
        (r"\d{6}-\d{7}", rrn.is_valid),  # Korea
        (r"\d{6}[-+]\d{4}", personnummer.is_valid),  # Sweden
        (r"\d{3}-\d{2}-\d{4}", ssn.is_valid),  # United States: no check digit, but numbers that are never given
    ]
]


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for hit in _IBAN.finditer(text):
        # Words in capitals after it look like more of it.
        for end in (hit.start() + length for length in range(len(hit[0]), 14, -1)):
            if text[hit.start() : end].strip() == text[hit.start() : end] and iban.is_valid(text[hit.start() : end]):
                yield hit.start(), end
                break


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for hit in _CARD.finditer(text):
        digits = re.sub(r"\D", "", hit[0])
        if len(set(digits)) > 2 and _CARD_SERIES.fullmatch(digits) and luhn.is_valid(digits):
            yield hit.span()


def _national_ids(text: str) -> Iterator[tuple[int, int]]:
    for pattern, is_valid in _NATIONAL:
        for hit in pattern.finditer(text):
            if is_valid(hit[0]):
                yield hit.span()


# ── IP addresses ─────────────────────────────────────────────────────────────────────────────────────────────────

_IPV4 = re.compile(r"(?<![A-Za-z0-9_.])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_]|\.\d)")
_IPV6 = re.compile(
    r"(?<![A-Za-z0-9_:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![A-Za-z0-9_:])"
)
_NUMBERED = re.compile(r"(?:version|release|section|chapter|clause|§|\bv)[\s.:#]*$", re.IGNORECASE)


def _ips(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_IPV4, _IPV6):
        for hit in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(hit[0])
            except ValueError:
                continue
            # Those of a house's own network or of examples belong to nobody.
            if address.is_global and not _NUMBERED.search(text, max(0, hit.start() - 12), hit.start()):
                yield hit.span()


# ── Telephone numbers ────────────────────────────────────────────────────────────────────────────────────────────

_ABROAD = re.compile(r"(?<![A-Za-z0-9_+])\+ ?[1-9][\d ().\-/]{6,22}\d")
_BEFORE = r"(?<![A-Za-z0-9_.,+*/=^×÷$€£¥%-])(?<![=+*/×÷] )"
_AFTER = r"(?![A-Za-z0-9_]|[.,-]\d|\s*[*/=^+×÷%])"
_GROUPED = re.compile(_BEFORE + r"\(?\d{2,5}\)?(?:[ .-]{1,2}\d{2,8}){1,5}" + _AFTER)
_IN_ONE = re.compile(_BEFORE + r"\d{8,12}" + _AFTER)
_CALLING = re.compile(
    r"(?:\b(?:tel|phone|telephone|mobile|cell|call|text|ring|fax|whats ?app|telefon|handy|téléphone|teléfono|telefono|"
    r"numéro|móvil)\b|电话|手机|联系|致电|拨打|微信|電話|携帯|전화|휴대폰)[^\d\n]{0,24}$",
    re.IGNORECASE,
)
_WHERE_SPOKEN = {
    "en": ("US", "GB"), "zh": ("CN",), "de": ("DE", "AT", "CH"), "fr": ("FR",), "es": ("ES", "MX"), "it": ("IT",),
    "pt": ("BR", "PT"), "nl": ("NL",), "pl": ("PL",), "ru": ("RU",), "ja": ("JP",), "ko": ("KR",), "sv": ("SE",),
}  # fmt: skip
_LANGUAGE_UNKNOWN = ("US", "GB", "CN")


def _phones(text: str, lang: str) -> Iterator[tuple[int, int]]:
    for hit in _ABROAD.finditer(text):
        if end := _valid_end(text, hit, None):
            yield hit.start(), end
    regions = _WHERE_SPOKEN.get(lang[:2].lower(), _LANGUAGE_UNKNOWN)
    for pattern in (_GROUPED, _IN_ONE):
        for hit in pattern.finditer(text):
            is_called = _CALLING.search(text, max(0, hit.start() - 48), hit.start()) is not None
            if pattern is _IN_ONE and not is_called:
                continue
            leniency = phonenumbers.Leniency.VALID if is_called else phonenumbers.Leniency.EXACT_GROUPING
            for region in regions:
                if end := _valid_end(text, hit, region, leniency):
                    yield hit.start(), end
                    break


def _valid_end(
    text: str, hit: re.Match[str], region: str | None, leniency: int = phonenumbers.Leniency.VALID
) -> int | None:
    """Where the number ends that begins with the candidate, if there is one."""
    for match in phonenumbers.PhoneNumberMatcher(hit[0], region, leniency=leniency, max_tries=3):
        return hit.start() + match.end if match.start == 0 else None
    return None
