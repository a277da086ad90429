"""Bodies that no queue can use, and ids that look odd and are good."""

import json

NOT_JSON = {
    "empty": b"",
    "blank": b"   \n",
    "a word": b"nonsense",
    "a nul byte": b"\x00",
    "random bytes": bytes(range(256)),
    "invalid UTF-8": b"\xff\xfe\xfd",
    "invalid UTF-8 in an id": b'{"id": "\xff", "body": %s}',
    "UTF-16": '{"id": 1, "body": %s}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"id": 1, "body": %s}',
    "cut off": b'{"id": 1, "body": ',
    "cut off in a string": b'{"id": "ab',
    "two objects": b'{"id": 1, "body": %s} {"id": 2, "body": %s}',
    "a tail": b'{"id": 1, "body": %s} x',
    "single quotes": b"{'id': 1, 'body': %s}",
    "Python": b'{"id": None, "body": %s}',
    "a comment": b'{"id": 1, /* why */ "body": %s}',
    "a trailing comma": b'{"id": 1, "body": %s,}',
    "a leading zero": b'{"id": 01, "body": %s}',
    "a plus sign": b'{"id": +1, "body": %s}',
    "hexadecimal": b'{"id": 0x1, "body": %s}',
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.",
    "XML": b"<row><id>1</id></row>",
    "CSV": b"1765912012.233366,101.0",
    "a lone surrogate": b'{"id": "\\ud800", "body": %s}',
    "a raw newline in a string": b'{"id": "a\nb", "body": %s}',
    "10 MB of nothing": b"x" * 10_000_000,
}
NOT_AN_OBJECT = {
    "null": b"null",
    "true": b"true",
    "a number": b"12.5",
    "a string": b'"row"',
    "an array": b'[1, "body"]',
    "an object in an array": b'[{"id": 1, "body": %s}]',
    "nested 100,000 deep": b"[" * 100_000,
    "nested 100,000 deep beside the id": b'{"id": 1, "body": %s, "x": ' + b'{"a":' * 100_000,
}
BAD_ID = {
    "no id": b'{"body": %s}',
    "null id": b'{"id": null, "body": %s}',
    "empty id": b'{"id": "", "body": %s}',
    "true as id": b'{"id": true, "body": %s}',
    "an array as id": b'{"id": [1], "body": %s}',
    "an object as id": b'{"id": {"a": 1}, "body": %s}',
    "NaN as id": b'{"id": NaN, "body": %s}',
    "infinity as id": b'{"id": Infinity, "body": %s}',
    "an id too large for a float": b'{"id": 1e999, "body": %s}',
    "an id of 5,000 digits": b'{"id": ' + b"9" * 5000 + b', "body": %s}',
    "an id of 256 digits": b'{"id": ' + b"9" * 256 + b', "body": %s}',
    "an id of 256 letters": b'{"id": "' + b"a" * 256 + b'", "body": %s}',
    "an id of 10 MB": b'{"id": "' + b"a" * 10_000_000 + b'", "body": %s}',
    "Id with a capital": b'{"Id": 1, "body": %s}',
}
BAD_BODY = {
    "no body": b'{"id": 1}',
    "an empty object": b"{}",
    "another name for the body": b'{"id": 1, "value": %s}',
    "null": b'{"id": 1, "body": null}',
    "true": b'{"id": 1, "body": true}',
    "a number as text": b'{"id": 1, "body": "101.0"}',
    "an empty text": b'{"id": 1, "body": ""}',
    "an object": b'{"id": 1, "body": {"0": 1.0}}',
    "NaN": b'{"id": 1, "body": NaN}',
    "infinity": b'{"id": 1, "body": Infinity}',
    "minus infinity": b'{"id": 1, "body": -Infinity}',
    "too large for a float": b'{"id": 1, "body": 1e999}',
    "an empty array": b'{"id": 1, "body": []}',
    "an array in an array": b'{"id": 1, "body": [[1.0]]}',
    "the body twice, the last one bad": b'{"id": 1, "body": %s, "body": null}',
}


def ten(last: bytes) -> bytes:
    return b'{"id": 1, "body": [1, 2, 3, 4, 5, 6, 7, 8, 9, ' + last + b"]}"


BAD_FEATURES = {
    "one number": b'{"id": 1, "body": 101.0}',
    "nine numbers": b'{"id": 1, "body": [1, 2, 3, 4, 5, 6, 7, 8, 9]}',
    "eleven numbers": ten(b"10, 11"),
    "a million numbers": b'{"id": 1, "body": [' + b"1," * 999_999 + b"1]}",
    "nine numbers and null": ten(b"null"),
    "nine numbers and a text": ten(b'"10"'),
    "nine numbers and true": ten(b"true"),
    "nine numbers and NaN": ten(b"NaN"),
    "nine numbers and infinity": ten(b"Infinity"),
    "nine numbers and 1e301": ten(b"1e301"),
    "ten rows": b'{"id": 1, "body": [' + b",".join([b"[1,2,3,4,5,6,7,8,9,10]"] * 10) + b"]}",
}
BAD_NUMBER = {
    "an array of one": b'{"id": 1, "body": [101.0]}',
    "ten numbers": ten(b"10"),
    "beyond the largest": b'{"id": 1, "body": 1e301}',
    "beyond the smallest": b'{"id": 1, "body": -1e301}',
    "an integer of 400 digits": b'{"id": 1, "body": ' + b"9" * 400 + b"}",
    "a decimal comma": b'{"id": 1, "body": 101,5}',
    "a complex number": b'{"id": 1, "body": 1+2j}',
    "a percentage": b'{"id": 1, "body": 12%}',
}


def bad_bodies(queue: str) -> dict[str, bytes]:
    """Return {kind: body}, at least 60 of them, of what `queue` cannot use."""
    good = b"[1,2,3,4,5,6,7,8,9,10]" if queue == "features" else b"101.0"
    kinds = NOT_JSON | NOT_AN_OBJECT | BAD_ID
    kinds |= {f"{kind} as body": body for kind, body in BAD_BODY.items()}
    kinds |= BAD_FEATURES if queue == "features" else BAD_NUMBER
    return {kind: body.replace(b"%s", good) for kind, body in kinds.items()}


ODD_IDS = [
    0,
    -1,
    7,
    12345678901234567890123456789,
    0.1,
    -0.5,
    1e22,
    1765912012.233366,
    "a",
    " ",
    " a b ",
    "comma, comma",
    'a "quoted" word',
    '"',
    '""',
    "line\nline",
    "return\rreturn",
    "both\r\nboth",
    "\n",
    "=1+1",
    "@cmd",
    "-",
    "#",
    "id",
    "nan",
    "Пациент № 5",
    "Кострома, «Москва»\nЯрославль",
    "\u2028line separator",
    "\ufeffmark",
    "\x00nul",
    "\x85next line",
    "😀",
    "'",
    "\\",
    "\\n",
    10**254,
    "x" * 255,
    "ы" * 255,
    '"' * 255,
    json.dumps({"id": 1}),
    "1,2,3,4\n5,6,7,8",
]
