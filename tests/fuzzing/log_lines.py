"""Mutated log lines, in small blocks so that many blocks can be parsed at once."""

import random
from unittest import mock

from pipelines.logs import event_parser, line_blocks, line_parser
from pipelines.logs.event_rules import MAX_ID_BYTES
from pipelines.logs.log_format import LogFormat

JSON = line_blocks.Unit("log.jsonl", 0, "jsonl", False, 0, 1 << 40)
CSV = line_blocks.Unit(
    "log.csv", 0, "csv", False, 0, 1 << 40, True, ("user_id", "item_id", "timestamp", "note")
)
PLAIN = LogFormat()
SHOWN = LogFormat(label="clicked", request="request_id", score="score")
RATED = LogFormat(rating="stars", min_rating=4)

SCALARS = [
    "Inf", "-Inf", "-NaN", "-Infinity", "[NaN, -Inf]",
    "5", "0", "-1", "1.5", "1e3", "-0", "007", "1E400", "NaN", "Infinity", "true", "null", '""',
    '"7"', '" 7"', '"+7"', '"1_0"', '"0x1F"', '"nan"', '"1e2"', '"\\u0000"', '"\\ud800"',
    '"\\ud83d\\ude00"', '"é"', "[]", "{}", '"a\\nb"', "9223372036854775808", "1600000000",
    '"true"', '"1.0"', '"."', '"5."', '".5"', "4.0", '"١"', "18446744073709551616", '"-5"',
]  # fmt: skip


def mutated(rng: random.Random, base: dict[str, str]) -> bytes:
    """A line: fields with values that are mostly fine, then perhaps damaged bytes."""
    fields = [(f'"{name}"', value) for name, value in base.items()]
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        place = rng.randrange(len(fields))
        action = rng.randrange(5)
        if action <= 2:
            fields[place] = (fields[place][0], rng.choice(SCALARS))
        elif action == 3:
            fields.append(rng.choice(fields))
        else:
            del fields[place]
            if not fields:
                break
    text = ("{" + ", ".join(f"{k}: {v}" for k, v in fields) + "}").encode()
    for _ in range(rng.choice([0, 0, 0, 0, 1, 3])):
        place = rng.randrange(len(text) + 1)
        cut = rng.choice([0, 0, 1, 5])
        junk = bytes([rng.choice(b'\x00\t\r "{}[]:,\\\xff\xc3\xe28aZ')]) * rng.choice([0, 1, 1, 2])
        text = text[:place] + junk + text[place + cut :]
    return text.replace(b"\n", b" ")


def mutated_csv(rng: random.Random) -> bytes:
    cells = ["u1", "i1", "1600000000", "note"]
    if rng.random() < 0.5:
        cells[rng.randrange(4)] = rng.choice(SCALARS)
    text = ",".join(cells).encode()
    if rng.random() < 0.3:
        place = rng.randrange(len(text) + 1)
        text = text[:place] + bytes([rng.choice(b'",\r\x00 \xff\\')]) + text[place:]
    return text


def outcome(parsed, count):
    rejected = sorted((r.position, r.reason, r.raw) for r in parsed.rejects)
    assert parsed.lines == count
    assert len(parsed.events) + sum(parsed.filtered.values()) + len(rejected) == count
    return parsed.events.to_pylist(), parsed.filtered, rejected


BASES = {
    "plain": (PLAIN, {"user_id": '"u1"', "item_id": '"i1"', "timestamp": "1600000000"}),
    "numbers": (PLAIN, {"user_id": "17", "item_id": "4", "timestamp": "16.5"}),
    "shown": (
        SHOWN,
        {"user_id": '"u"', "item_id": '"i"', "timestamp": "5", "clicked": "1",
         "request_id": "8", "score": "0.25"},
    ),
    "rated": (RATED, {"user_id": '"u"', "item_id": '"i"', "timestamp": "5", "stars": "4.5"}),
    "csv": (PLAIN, {}),
}  # fmt: skip


def fuzz(name: str, lines: int, seed: int) -> int:
    """Mutated lines both ways; how many of them were parsed at once."""
    rng = random.Random(f"{name}{seed}")
    log, base = BASES[name]
    unit = CSV if name == "csv" else JSON
    done = at_once = 0
    while done < lines:
        count = rng.choice([1, 1, 2, 3, 6])
        made = [mutated_csv(rng) if name == "csv" else mutated(rng, base) for _ in range(count)]
        if rng.random() < 0.1:
            made.insert(rng.randrange(count), rng.choice([b"", b" ", b"\r", b"\t \x0b"]))
            count += 1
        block = line_blocks.Block(1000, b"".join(text + b"\n" for text in made))
        alone = line_parser.parse_line_by_line(block, unit, log)
        with mock.patch.object(event_parser, "parse_line_by_line", return_value=alone) as fallback:
            together = event_parser.parse_block(block, unit, log)
        done += count
        outcome(alone, count)
        for event in alone.events.to_pylist():
            check_event(event)
        if fallback.called:  # it is the reference itself
            continue
        try:
            assert outcome(together, count) == outcome(alone, count)
        except AssertionError:
            print(block.data)
            raise
        at_once += count
    return at_once


def check_event(event):
    """What no input may break."""
    assert 0 <= event["time"] <= PLAIN.max_time
    for name in ("user", "item", "request"):
        if name in event:
            assert event[name]
            assert event[name].isprintable() or all(ord(c) > 159 for c in event[name])
            assert len(event[name].encode()) <= MAX_ID_BYTES
