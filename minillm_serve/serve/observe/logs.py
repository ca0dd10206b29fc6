"""Logs one can search: a line for each HTTP request, as text or JSON, that no client can forge and that blocks nobody.

Records pass through a bounded queue to a thread that writes them: a full pipe or a slow disk holds up that thread
alone. When the queue is full, records are dropped and counted, not waited for.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import logging.handlers
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
QUEUE_RECORDS = 10_000
LAST_LINES_S = 0.5
OURS = ("minillm", "minillm_serve")  # loggers; all others keep the root's level, which is "warning"
FIELDS = "fields"  # the attribute of a record that holds its structured fields


def escape_controls(text: str) -> str:
    """``text`` on one line: what a terminal or a reader of lines could take for more than a character is escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _moment(record: logging.LogRecord) -> str:
    """UTC, ISO 8601 with milliseconds."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """``time LEVEL logger message key=value ...``; a traceback follows on indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        fields = "".join(f" {key}={_plain(value)}" for key, value in getattr(record, FIELDS, {}).items())
        message = escape_controls(record.getMessage() + fields)
        line = f"{_moment(record)} {record.levelname} {record.name} {message}"
        if (trace := _traceback(self, record)) is not None:
            # No line of it can be taken for a record: an error's text may hold what a client wrote.
            line += "".join(f"\n    {escape_controls(part)}" for part in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        content = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if (trace := _traceback(self, record)) is not None:
            content["exception"] = trace
        return json.dumps(content, default=str)


def _plain(value: object) -> str:
    """A field's value in a line of text; in quotes where it would not be one word."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if text and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    return record.exc_text or None


_PLAIN = logging.Formatter()


class _BoundedQueue(logging.handlers.QueueHandler):
    """Hands records over without waiting."""

    def __init__(self, records: queue.Queue[logging.LogRecord | None]):
        super().__init__(records)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """A copy in which nothing refers to what may change or should die: arguments, exceptions and their frames."""
        record = copy.copy(record)
        record.exc_text = _traceback(_PLAIN, record)
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """See QueueHandler."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            return
        if self.dropped and self.queue.qsize() < QUEUE_RECORDS // 2:
            lost, self.dropped = self.dropped, 0
            self.handle(_lost(lost))


def _lost(count: int) -> logging.LogRecord:
    message = "%d log records were dropped: they came faster than they could be written"
    return logging.LogRecord("minillm.log", logging.WARNING, __file__, 0, message, (count,), None)


class _Writer(threading.Thread):
    """Writes what is in the queue until it finds None there."""

    def __init__(self, records: queue.Queue[logging.LogRecord | None], handler: logging.Handler):
        super().__init__(name="minillm-log", daemon=True)
        self._records = records
        self._handler = handler

    def run(self) -> None:
        """See Thread."""
        while (record := self._records.get()) is not None:
            self._handler.handle(record)

    def finish(self) -> None:
        """Write the rest, for LAST_LINES_S at most: a pipe that nobody reads any more must not hold up the end."""
        with contextlib.suppress(queue.Full):
            self._records.put(None, timeout=LAST_LINES_S)
            self.join(LAST_LINES_S)


class _Stderr:
    """The file descriptor itself: a thread that is stuck in it holds no lock that the interpreter's end needs."""

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(2, data) :]

    def flush(self) -> None:
        """Nothing is held back."""


@contextmanager
def logging_to(stream: TextIO | None = None, form: str = "text", level: str = "info") -> Iterator[None]:
    """Inside, the server's records from ``level`` on, and the libraries' warnings, go to ``stream`` (default: stderr).

    What was logged is written when the block ends, if it can be written at all.
    """
    target = logging.StreamHandler(stream or _Stderr())
    target.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    records: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_RECORDS)
    handler, writer = _BoundedQueue(records), _Writer(records, target)
    loggers = [logging.getLogger(name) for name in OURS]
    before = [logger.level for logger in loggers]
    logging.getLogger().addHandler(handler)
    for logger in loggers:
        logger.setLevel(level.upper())
    writer.start()
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)
        writer.finish()
