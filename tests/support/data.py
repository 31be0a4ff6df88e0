"""Files with the same contents on every machine, for the programs that read some."""

from __future__ import annotations

import random
from pathlib import Path


def write_data(directory: Path) -> Path:
    """Fill `directory` with text, tables and 10 MB of bytes, all from one seed, with fixed modes and times."""
    rng = random.Random(20240101)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 12))) for _ in range(400)]
    lines = [" ".join(rng.choices(words, k=rng.randint(0, 14))) for _ in range(3000)]
    texts = {
        "text": "\n".join(lines) + "\n",
        "numbers": "".join(f"{rng.randint(-(10**6), 10**6)}\n" for _ in range(5000)),
        "sorted": "".join(f"{word}\n" for word in sorted(set(words))),
        "other": "".join(f"{word}\n" for word in sorted(set(words[::2]) | {"zz", "0"})),
        "repeated": "".join(f"{word}\n" * rng.randint(1, 4) for word in words),
        "table": "".join(f"{i:04}:{word}:{rng.randint(0, 999)}:x\n" for i, word in enumerate(words)),
        "left": "".join(f"{i:04} {word}\n" for i, word in enumerate(words)),
        "right": "".join(f"{i:04} {word}\n" for i, word in enumerate(reversed(words)) if i % 3),
        "no-newline": "a\tb\tc\nlast line without an end",
        "empty": "",
    }
    for name, text in texts.items():
        (directory / name).write_text(text)
    (directory / "bytes").write_bytes(rng.randbytes(10_000_000))
    (directory / "all-bytes").write_bytes(bytes(range(256)) * 5)
    (directory / "tree" / "deep" / "deeper").mkdir(parents=True)
    for name in ("one.c", "two.h", "deep/three.c", "deep/deeper/four.c"):
        (directory / "tree" / name).write_text(f"/* {name} */\n" * 100)
    (directory / "tree" / "link").symlink_to("deep/three.c")
    (directory / "tree" / "dangling").symlink_to("nowhere")
    return directory
