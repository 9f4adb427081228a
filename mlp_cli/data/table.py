"""A CSV or TSV file as a table of text cells: delimiter and header are found, every row is checked, lines are known.

Everything is read as strings and becomes numbers later, so that no cell is guessed at twice. pyarrow does the reading,
as it is quick and refuses ragged rows; what it finds is reported by line.
"""

import re

import numpy as np

from mlp_cli import memory
from mlp_cli.data import cells
from mlp_cli.data.reading import refuse_many_columns, refuse_repeats
from mlp_cli.data.text import Lines, clean
from mlp_cli.errors import DataError, shortage
from mlp_cli.wording import listed, plural, quoted

DELIMITERS = ("\t", ";", ",")  # a file with decimal commas has `,` in each row as well, so `;` is tried before it
SNIFFED_RECORDS = 20
SAMPLED_ROWS = 100
BLOCK_BYTES = 4 << 20
MAX_COLUMNS = 100_000  # each takes pyarrow 10 kB and 0.1 ms, however few its cells
COLUMN_BYTES = 10_000
CELL_BYTES = 27  # measured: a cell's place in its column, its number in float64, and its share of the inputs


class TextTable:
    """Named columns of trimmed text cells.

    `names` are those of the header or of data.names; without either they are 0, 1, ... and `named` is false.
    """

    chunk = 1 << 19  # numbers to gather at a time: each column of a chunk costs a call

    def __init__(self, source, names, named, columns, rows, lines, header, reading, untrimmed):
        self.source, self.names, self.named, self.rows = source, list(names), named, rows
        self._columns, self._lines, self._header, self._untrimmed = columns, lines, header, untrimmed
        self._decimal, self._missing_values = reading.decimal, reading.missing_values
        self._place = {name: place for place, name in enumerate(self.names)}
        self._text, self._numbers = {}, {}

    def rename(self, names):
        """The same columns under other names; for a table that is matched by position."""
        old_to_new = dict(zip(self.names, names, strict=True))
        self._text = {old_to_new[name]: value for name, value in self._text.items()}
        self._numbers = {old_to_new[name]: value for name, value in self._numbers.items()}
        self._place = {name: place for place, name in enumerate(names)}
        self.names, self.named = list(names), True

    def text(self, name):
        """The trimmed cells of a column, an Arrow string array (n,)."""
        if name not in self._text:
            self._text[name] = self._read(name)
        return self._text[name]

    def _read(self, name):
        column = self._columns[self._place[name]].combine_chunks()
        return cells.trimmed(column) if self._untrimmed else column

    def numbers(self, name):
        """The column as Numbers: NaN where missing, and the rows whose cell is no number."""
        if name not in self._numbers:
            self._numbers[name] = cells.numbers(self.text(name), self._decimal, self._missing_values)
            if self._numbers[name].bad.size == 0:
                del self._text[name]  # a wide table of numbers need not be held twice
        return self._numbers[name]

    def bad(self, name):
        """The rows whose cell in this column is neither a number nor missing."""
        return self.numbers(name).bad

    def words(self, name):
        """(codes int64 (n,), sorted words) of a column; the code -1 is a missing cell."""
        return cells.words(self.text(name), self._missing_values)

    def holes(self, name, as_words=False):
        """Which cells are missing, bool (n,), or None where none is."""
        if as_words or self.numbers(name).bad.size:
            mask = cells.holes(self.text(name), self._missing_values)
        else:
            mask = np.isnan(self.numbers(name).values)
        return mask if mask.any() else None

    def holds_words(self, name):
        """Whether some cell of the column is neither a number nor missing."""
        return self.numbers(name).bad.size > 0

    def as_number(self, word):
        """What a cell with this word reads as, None for no number."""
        return float(word.replace(self._decimal, ".")) if cells.is_number(word, self._decimal) else None

    def has_decimal_commas(self, name):
        """Whether the cells that are no numbers are all numbers with a decimal comma."""
        bad = self.numbers(name).bad
        return self._decimal == "." and bad.size > 0 and cells.have_decimal_commas(self.text(name), bad)

    def cell(self, name, row):
        """One cell as it is written, trimmed."""
        return self.text(name)[int(row)].as_py()

    def cells(self, name):
        """A whole column as it is written, trimmed: list of n strings."""
        return self.text(name).to_pylist()

    def where(self, row):
        """`file:line` of a row, for messages."""
        return f"{self.source}:{self._lines.line_of(int(row) + self._header)}"

    def locate(self, names):
        """What `gather` needs to find these numeric columns again."""
        return [self.numbers(name).values for name in names]

    def gather(self, located, rows, out):
        """Copy the numbers of these rows into out (m, k), float64; missing ones are NaN."""
        for place, values in enumerate(located):
            out[:, place] = values[rows]

    def digest_into(self, digest):
        """Add names, shape and cells to a hash; how the cells were quoted or separated plays no part."""
        digest.update(repr(("text", self.named, self.names, self.rows)).encode())
        for name in self.names:
            column = self._read(name)
            offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + self.rows + 1]
            digest.update(np.diff(offsets).astype("<i4").tobytes())
            if column.buffers()[2] is not None:
                digest.update(memoryview(column.buffers()[2])[offsets[0] : offsets[-1]])


def read_table(raw, source, reading, known=None):
    """Read the bytes of a text file as a TextTable; `known` are the columns of the training table, if there is one.

    DataError for anything that is not a table: wrong encoding, ragged rows, open quotes, bad headers, no rows.
    """
    text = clean(raw, source, reading.encoding)
    delimiter = reading.delimiter or _sniff_delimiter(Lines(text, None, reading.comment), source)
    lines = Lines(text, delimiter, reading.comment)
    table = _parse(lines, delimiter, source)
    table, names, named, header = _take_header(table, source, reading, known, lines)
    if table.num_rows == 0:
        raise DataError(f"{source}: holds a header but no rows" if header else f"{source}: holds no rows")
    # what can hold white space at the ends of a cell; within quotes a line end can
    untrimmed = any(mark in text for mark in (b" ", b"\t", b'"')) or not text.isascii()
    return TextTable(source, names, named, table.columns, table.num_rows, lines, header, reading, untrimmed)


# ---- delimiter


def _sniff_delimiter(lines, source):
    """Tab, semicolon or comma: the first that cuts the first records into equally many cells, more than one."""
    sample = [record for _, (_, record, _) in zip(range(SNIFFED_RECORDS), lines.records(), strict=False)]
    if source.lower().removesuffix(".gz").endswith((".tsv", ".tab")) and any(b"\t" in record for record in sample):
        return "\t"
    counts = {mark: [_count_cells(record, mark) for record in sample] for mark in DELIMITERS}
    for mark in DELIMITERS:
        if sample and counts[mark][0] > 1 and len(set(counts[mark])) == 1:
            return mark
    if not sample:
        return ","
    return max(reversed(DELIMITERS), key=lambda mark: counts[mark][0])  # ragged: the message will say where


def _count_cells(record, delimiter):
    """How many cells a record has, 0 where with this delimiter it would be more than one."""
    mark = delimiter.encode()
    if b'"' in record:
        quoted_cell = rb"(^|" + re.escape(mark) + rb') *"[^"]*+(?:""[^"]*+)*+(?:"|\Z)'
        record = re.sub(quoted_cell, rb"\1", record)
    return record.count(mark) + 1 if b"\n" not in record.removesuffix(b"\n") else 0


# ---- parsing


def _parse(lines, delimiter, source):
    """All records as Arrow string columns, the header still among them."""
    import pyarrow as pa

    _, first, closed = next(lines.records(), (0, None, True))
    if first is None:
        raise DataError(f"{source}: is empty; expected a table with a row for each sample")
    if not closed:
        _refuse_open_quote(lines, source)
    _refuse_size(lines.text, first, delimiter.encode(), source)
    body = lines.body()
    width = max(_count_cells(first, delimiter), 1)
    try:
        table = _read_strings(body, delimiter, width)
        if table.num_columns != width:  # quotes where none belong, which Arrow counts otherwise
            width = table.num_columns
            table = _read_strings(body, delimiter, width)
    except MemoryError:  # Arrow's is both
        raise
    except (pa.ArrowException, UnicodeDecodeError) as error:
        if _says_no_thread(error):
            raise shortage(RuntimeError(str(error)), source) from None
        _refuse_open_quote(lines, source)
        _refuse_ragged(lines, body, delimiter, width, source)
        reason = str(error).splitlines()[0]
        raise DataError(f"{source}: cannot be read as cells separated by {quoted(delimiter)}: {reason}") from None
    last = table.column(width - 1)[-1].as_py()
    if last.endswith("\n"):  # only an unclosed quote, which runs to the end of the text, can do that
        _refuse_open_quote(lines, source)
    return table


def _refuse_size(text, first, delimiter, source):
    """DataError for too many columns, SystemFault for a table that memory has no room for."""
    columns = first.count(delimiter) + 1
    refuse_many_columns(columns, MAX_COLUMNS, source)
    count = text.count(delimiter) + text.count(b"\n")
    needed = len(text) + count * CELL_BYTES + columns * COLUMN_BYTES
    memory.require(needed, f"{source}: its {count:,} cells need", memory.LESS_DATA)


def _read_strings(body, delimiter, width=0, on_ragged=None):
    """Read records as string columns f0, f1, ...; `on_ragged` is told of one that is not as wide as the first."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    def read_with(threads, block_bytes):
        return arrow_csv.read_csv(
            pa.BufferReader(body),
            arrow_csv.ReadOptions(autogenerate_column_names=True, block_size=block_bytes, use_threads=threads),
            arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in body, invalid_row_handler=on_ragged),
            arrow_csv.ConvertOptions(
                column_types={f"f{number}": pa.string() for number in range(width)}, strings_can_be_null=False
            ),
        )

    def read(block_bytes):
        try:
            return read_with(on_ragged is None, block_bytes)
        except pa.ArrowException as error:
            if not _says_no_thread(error):
                raise
            pa.set_cpu_count(1)  # the threads of Arrow that there are end, which leaves some for training
            return read_with(False, block_bytes)

    whole = min(len(body) + 1, 2**31 - 1)
    try:
        return read(min(whole, BLOCK_BYTES))
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        return read(whole)  # a record longer than a block: take it all as one


def _says_no_thread(error):
    """Whether Arrow's error is that the system allows no further thread, and not one of the table."""
    import pyarrow as pa

    return type(error) is pa.ArrowException and "launch worker thread" in str(error)


def _refuse_ragged(lines, body, delimiter, width, source):
    """DataError for the first record that is not as wide as the first one; read once more, for its number."""
    import pyarrow as pa

    ragged = []

    def note(row):
        ragged.append(row)
        return "error"

    try:
        _read_strings(body, delimiter, width, note)
    except pa.ArrowException:
        if ragged and ragged[0].number is not None:
            line = lines.line_of(ragged[0].number - 1)
            raise DataError(
                f"{source}:{line}: expected {plural(width, 'cell')}, found {ragged[0].actual_columns}"
            ) from None


def _refuse_open_quote(lines, source):
    for line, _, closed in lines.records():
        if not closed:
            raise DataError(f'{source}:{line}: a quote (") opens here and is never closed')


# ---- header


def _take_header(table, source, reading, known, lines):
    """(table without its header, names, whether they mean anything, 1 if there was a header else 0)."""
    first = [table.column(number)[0].as_py().strip() for number in range(table.num_columns)]
    recognised = known is not None and known.named and _names_features(first, known)
    header = reading.header
    if header is None:
        header = recognised or (reading.names is None and _looks_like_header(table, first, reading, known))
    named = True
    if reading.names is not None and not recognised and (known is None or len(reading.names) == len(first)):
        _check_names(reading.names, first, header, source, lines)
        names = reading.names
    elif header and (reading.names is None or recognised):
        refuse_repeats(first, f"{source}:{lines.line_of(0)}")
        names = first
    else:
        names, named = [str(number) for number in range(len(first))], False
    return (table.slice(1) if header else table), names, named, int(header)


def _names_features(first, known):
    """Whether the first row names at least half of the features of the training table."""
    return 2 * len(set(known.features) & set(first)) >= len(known.features)


def _looks_like_header(table, first, reading, known):
    """Whether some column is numeric below a first cell that is not, or no column of the file is numeric.

    The latter only for a training table: a header it has would have been recognised in another one.
    """
    numeric_columns = False
    for number, cell in enumerate(first):
        if _is_numeric_below(table.column(number), reading):
            if not cells.is_number(cell, reading.decimal) and cell not in reading.missing_values:
                return True
            numeric_columns = True
    if table.num_rows == 1:
        numeric_columns = any(cells.is_number(cell, reading.decimal) for cell in first)
    return known is None and not numeric_columns


def _is_numeric_below(column, reading):
    """Whether the first hundred cells below the first are numbers, holes apart, and at least one is."""
    sample = column.slice(1, SAMPLED_ROWS).combine_chunks()
    if len(sample) == 0:
        return False
    found = cells.numbers(cells.trimmed(sample), reading.decimal, reading.missing_values)
    return found.bad.size == 0 and not np.isnan(found.values).all()


def _check_names(names, first, header, source, lines):
    if len(names) != len(first):
        raise DataError(
            f"{source}:{lines.line_of(0)}: expected {len(names)} cells, one for each of data.names; "
            f"found {len(first)}: {listed(first, 4)}"
        )
    if not header and tuple(first) == tuple(names):
        raise DataError(f"{source}:{lines.line_of(0)}: repeats data.names; set data.header: true")
