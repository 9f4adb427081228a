"""From the bytes of a text file to clean UTF-8, and from a record back to its line in the file.

The table reader wants records only and counts them; people count lines. So comments and blank lines are taken out here
before the reader sees them, and counted in here again when a message names a line.
"""

import codecs
import re

from mlp_cli.errors import DataError, OptionError
from mlp_cli.wording import quoted

BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
UTF8_MARK = b"\xef\xbb\xbf"
CHECKED_BYTES = 64 << 20  # decoded at a time, which takes up to four times as much memory
QUOTE_AT_START = re.compile(rb' *"')
CLOSING_QUOTE = re.compile(rb'[^"]*+(?:""[^"]*+)*+"')


def clean(raw, source, encoding=None):
    r"""The text as UTF-8 bytes: no byte order mark, `\n` line ends only and one at the end.

    DataError when the bytes are not text in that encoding (UTF-8 unless said) or hold NUL bytes.
    """
    if encoding is not None:
        raw = _recoded(raw, source, encoding).removeprefix(UTF8_MARK)
    else:
        _refuse_wide_text(raw[:4096], source)
        raw = raw.removeprefix(UTF8_MARK)
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise DataError(f"{source}:{line}: holds a NUL byte, so it is not a text table; expected CSV or TSV text")
    _refuse_other_encoding(raw, source)
    return raw if raw.endswith(b"\n") else raw + b"\n"


def _refuse_wide_text(head, source):
    """DataError when the first bytes look like UTF-16 or UTF-32: a byte order mark, or every other byte is NUL."""
    if head.startswith(UTF8_MARK) and head.count(b"\0") * 3 > len(head):
        raise DataError(
            f"{source}: begins with the byte order mark of UTF-8 and goes on as UTF-16 or UTF-32, so no encoding reads "
            "it; save it as UTF-8"
        )
    for mark, name in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            raise DataError(f"{source}: is {name.upper()} text; set data.encoding: {name}, or save it as UTF-8")
    for first, name in ((0, "utf-16-be"), (1, "utf-16-le")):
        half = head[first::2]
        if len(half) >= 4 and half.count(b"\0") * 10 >= len(half) * 8 and head.count(b"\0") * 10 <= len(head) * 6:
            raise DataError(f"{source}: looks like UTF-16 text; set data.encoding: {name}, or save it as UTF-8")


def _recoded(raw, source, encoding):
    try:
        return raw.decode(encoding).encode()  # some codecs give half characters that no UTF-8 can hold
    except LookupError:
        raise OptionError(
            "data.encoding", f"expected a text encoding such as utf-8, latin-1 or cp1252; got {quoted(encoding)}"
        ) from None
    except (UnicodeError, ValueError) as error:
        line = raw.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise DataError(f"{source}:{line}: is not {encoding} text; set data.encoding to what it is") from None


def _refuse_other_encoding(raw, source):
    if raw.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(raw), CHECKED_BYTES):
            decoder.decode(raw[start : start + CHECKED_BYTES], final=start + CHECKED_BYTES >= len(raw))
    except UnicodeDecodeError as error:
        # what it decodes begins with the bytes of a character that the block before has cut
        place = min(start + CHECKED_BYTES, len(raw)) - len(error.object) + error.start
        line = raw.count(b"\n", 0, place) + 1
        raise DataError(
            f"{source}:{line}: the byte 0x{raw[place]:02x} is not UTF-8; set data.encoding, to latin-1 or "
            "cp1252 for example, or save the file as UTF-8"
        ) from None


class Lines:
    """The records of a text and the lines they begin on; comment lines and blank lines are no records.

    A record is a line, or several where a quoted cell holds line ends. Without a delimiter (it is still to be found)
    a quote counts as opening after any usual one.
    """

    def __init__(self, text, delimiter=None, comment=None):
        self.text = text
        self.comment = comment.encode() if comment else None
        remark = rb"(?:" + re.escape(self.comment) + rb".*)?" if comment else rb""
        self._no_record = re.compile(rb"^ *" + remark + rb"\n", re.MULTILINE)
        before_a_cell = re.escape(delimiter.encode()) if delimiter else rb"[,;\t]"
        self._opening_quote = re.compile(before_a_cell + rb' *"')
        # with the whole quoted cell, for what looks like another opening quote within it is none
        self._spaces_before = re.compile(rb"(^|" + before_a_cell + rb') *("[^"]*+(?:""[^"]*+)*+(?:"|\Z))', re.MULTILINE)

    def records(self):
        """Yield (line number of its first line, the record's bytes, whether its quotes are closed)."""
        text, start, number = self.text, 0, 1
        while start < len(text):
            end, closed, height = self._line_end(start), True, 1
            line = text[start:end]
            if not self._is_no_record(line):
                if b'"' in line:
                    end, closed = self._end_of_quoted(start, end)
                    line = text[start:end]
                    height = line.count(b"\n")
                yield number, line, closed
            start, number = end, number + height

    def body(self):
        """The text with only records in it, and quoted cells without spaces before the quote, which Arrow takes for
        the beginning of a cell without quotes."""
        text = self.text
        if self._holds_more_than_records():
            if b'"' in text:
                text = b"".join(record for _, record, _ in self.records())
            else:
                text = self._no_record.sub(b"", text)
        if b' "' in text:
            text = self._spaces_before.sub(rb"\1\2", text)
        return text

    def line_of(self, record):
        """The number, from 1, of the line on which record number `record` (from 0) begins."""
        for count, (line, _, _) in enumerate(self.records()):
            if count == record:
                return line
        raise IndexError(f"there is no record {record}")

    def _is_no_record(self, line):
        bare = line.strip(b" \n")
        return not bare or (self.comment is not None and bare.startswith(self.comment))

    def _holds_more_than_records(self):
        starts = [b" "] + ([self.comment] if self.comment else [])
        return any(self.text.startswith(start) or b"\n" + start in self.text for start in starts)

    def _line_end(self, start):
        return self.text.find(b"\n", start) + 1 or len(self.text)

    def _end_of_quoted(self, start, end):
        """(where the record ends that begins at `start` with a line up to `end`, whether its quotes are closed).

        From quote to quote, not from line to line: a cell may hold millions of lines.
        """
        opening = QUOTE_AT_START.match(self.text, start, end) or self._opening_quote.search(self.text, start, end)
        while opening is not None:
            closing = CLOSING_QUOTE.match(self.text, opening.end())
            if closing is None:
                return len(self.text), False
            end = self._line_end(closing.end())
            opening = self._opening_quote.search(self.text, closing.end(), end)
        return end, True
