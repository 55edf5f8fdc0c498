"""What happens to files: cut, changed, emptied, gone."""

from idennet_core.streams import generator

DAMAGES = ("cut", "flipped", "header flipped", "empty", "text", "missing")


def spoil(path, damage, *stream):
    """Damage a file in one of these ways, at a place drawn from the stream of this name; white space stays."""
    draw, whole = generator("damage", path.name, damage, *stream), path.read_bytes()
    if damage == "missing":
        path.unlink()
        return
    head = whole[: 256 if damage == "header flipped" else None]
    place = draw.choice([at for at, byte in enumerate(head) if byte not in b" \n"])
    flipped = whole[:place] + bytes([whole[place] ^ draw.integers(1, 256)]) + whole[place + 1 :]
    others = {"cut": whole[: draw.integers(1, len(whole) - 1)], "empty": b"", "text": b"no checkpoint" * 9}
    path.write_bytes(others.get(damage, flipped))
