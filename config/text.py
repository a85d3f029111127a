"""Text as PostgreSQL can store it."""


def storable(text: str, most: int | None = None) -> str:
    r"""`text` with what PostgreSQL cannot store as people write it: a NUL as `\x00`, half of a
    surrogate pair as `\ud800`. At most `most` characters, the last one `…` where any are left out.
    """
    if most is not None:
        text = text[: most + 1]  # what is written out only grows
    text = text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
    if most is None or len(text) <= most:
        return text
    return f"{text[: most - 1]}…"
