"""Pictures that travel inside their URL."""

from __future__ import annotations

import binascii

from skipvision.errors import FetchError


def decode_data_url(url: str, *, max_bytes: int) -> bytes:
    """The bytes inside a `data:` URL, which must be base64 to the letter.

    Raises:
        FetchError: `url_invalid` or `fetch_too_large`.
    """
    kind, comma, text = url.partition(",")
    if not comma or not kind.lower().endswith(";base64"):
        raise FetchError("a data URL must read data:<type>;base64,<data>", code="url_invalid")
    num_bytes = len(text) // 4 * 3 - text[-2:].count("=")
    if num_bytes > max_bytes:
        raise FetchError(f"the data URL holds more than {max_bytes} bytes", code="fetch_too_large")
    invalid = FetchError("the data URL is not valid base64", code="url_invalid")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise invalid from error
    if len(text) % 4 or len(data) != num_bytes:  # even the strict mode lets padding pass that is left over
        raise invalid
    return data
