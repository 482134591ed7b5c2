"""What must hold before the next step begins, and what is settled there."""

import functools
from collections.abc import Iterable

from pipelines.logs import line_counts, log_format
from pipelines.logs.line_counts import LineCounts
from pipelines.options import Job
from pipelines.records import request_rules
from sitn_tf import schema
from sitn_tf.errors import InputError


def merged(parts: Iterable[LineCounts]) -> LineCounts:
    """The sum of line counts."""
    return functools.reduce(LineCounts.merge, parts, LineCounts())


def check_rejects(what: str, counts: LineCounts, job: Job, remedies: dict[str, str]) -> None:
    """Fails the job for too many rejects.

    `remedies` are for reasons that are commonly an option's fault.

    Raises:
      InputError: a larger share of the lines was rejected than the job allows.
    """
    if counts.reject_rate <= job.max_reject_rate:
        return
    [(worst, _)] = counts.rejected.most_common(1)
    remedy = remedies.get(worst, "")
    if remedy and (seen := counts.fields.get(worst)):
        remedy += f"; that line has {', '.join(seen)}"
    raise InputError(
        f"{sum(counts.rejected.values()):,} of {counts.total:,} lines of the {what} "
        f"were rejected, more than max_reject_rate={job.max_reject_rate:g} allows: "
        f"{counts.top_reasons()}{remedy and f': {remedy}'}"
    )


def log_remedies(domain: str, log: log_format.LogFormat) -> dict[str, str]:
    """By reason of reject, the option to look at."""
    options = log_format.option_names(log, domain)
    remedies = {log_format.missing(field): f"check {option}" for field, option in options.items()}
    remedies[log_format.far_future(log.time)] = (
        f"check formats.{domain}.time_unit, which is {log.time_unit}: "
        f"times in milliseconds need formats.{domain}.time_unit=ms"
    )
    remedies[log_format.wrong_type(log.time)] = (
        f"times are numbers since 1970 in formats.{domain}.time_unit, or timestamps of Parquet: "
        "dates in words have to be brought to one of these"
    )
    return remedies


def check_items(element: tuple[str, LineCounts], job: Job) -> tuple[str, LineCounts]:
    """Passes on the counts of a domain's item files, checked."""
    domain = element[0].removesuffix("_items")
    remedies = {log_format.missing(job.item_fields.item): "check item_fields.item"}
    check_rejects(f"{domain} item files", element[1], job, remedies)
    return element


def check_shared_users(shared: int) -> None:
    """
    Raises:
      InputError: no user has clicks in both logs.
    """
    if not shared:
        raise InputError(
            "no user has clicks in both logs: check that formats.source.user and "
            "formats.target.user name the same users"
        )


YEARS_APART = 5
"""Between the periods of two logs before one of them must have another unit of time."""


def check_periods(times: dict[str, line_counts.TimeHistogram]) -> None:
    """Refuses logs of periods that are years apart: histories would hold all of one log or none.

    Raises:
      InputError: the newest time of one log is years before the oldest of the other.
    """
    spans = {domain: known.span() for domain, known in times.items() if len(known.counts)}
    for earlier, later in (schema.DOMAINS, schema.DOMAINS[::-1]):
        if not {earlier, later} <= spans.keys():
            return
        apart = spans[later][0] - spans[earlier][1]
        if apart > YEARS_APART * 365 * 86_400:
            days = {domain: line_counts.days(span) for domain, span in spans.items()}
            raise InputError(
                f"the {earlier} log is of {days[earlier]}, the {later} log of {days[later]}: check "
                f"formats.{later}.time_unit and the time fields; "
                "logs in two units have to be brought to one first"
            )


NO_LOG_BEFORE = 631_152_000
"""1990, in Unix seconds: older times are in another unit, or don't count from 1970."""


def check_clock(domain: str, times: line_counts.TimeHistogram, log: log_format.LogFormat) -> None:
    """
    Raises:
      InputError: a log that ends before 1990, unless its numbers are no times.
    """
    if log.time_unit != schema.ORDER and len(times.counts) and times.span()[1] < NO_LOG_BEFORE:
        raise InputError(
            f"the {domain} log is of {line_counts.days(times.span())}, which no log is: check "
            f"formats.{domain}.time_unit, which is {log.time_unit}, and that times count from "
            "1970; numbers that only order a user's clicks are time_unit=order"
        )


def decide_cutoffs(
    carried: line_counts.TimeHistogram, counts: dict[str, LineCounts], job: Job
) -> tuple[request_rules.Cutoffs, line_counts.TimeHistogram]:
    """Checks what parsing found and settles the cutoffs; also the times of all target clicks.

    `carried` holds the times of the clicks that come from an earlier data set.

    Raises:
      InputError: a log without an event, too many rejects, or no train period.
    """
    for domain in schema.DOMAINS:
        parsed = counts.get(domain, LineCounts())
        check_rejects(f"{domain} log", parsed, job, log_remedies(domain, job.formats[domain]))
        if not parsed.events and not job.extends:
            raise InputError(f"the {domain} log holds no event: check its files and field names")
        if not len(parsed.times.counts) and not job.extends:
            raise InputError(
                f"no impression of the {domain} log was clicked: check formats.{domain}.label"
            )
    read = {domain: counts.get(domain, LineCounts()).times for domain in schema.DOMAINS}
    check_periods(read)
    for domain, times in read.items():
        check_clock(domain, times, job.formats[domain])
    times = counts.get(schema.TARGET, LineCounts()).times.merge(carried)
    if job.split == "last":
        return request_rules.Cutoffs(None, None), times
    if job.train_until is not None:
        return request_rules.Cutoffs(job.train_until, job.validation_until), times
    held_out = job.validation_fraction + job.test_fraction
    cutoffs = request_rules.Cutoffs(
        times.quantile(1 - held_out), times.quantile(1 - job.test_fraction)
    )
    return cutoffs, times
