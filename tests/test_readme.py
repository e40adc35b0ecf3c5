"""What the README shows in Python runs as it stands there."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SECTION = re.search(r"^## In Python$(.*?)^## ", README.read_text("utf-8"), re.M | re.S)[1]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", SECTION, re.M | re.S)


@pytest.mark.parametrize("count", range(1, len(BLOCKS) + 1))
def test_a_reader_gets_so_far(count, tmp_path, monkeypatch, capsys):
    """Each block goes on where the one before it ended."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS[:count]:
        exec(block, names)
    assert capsys.readouterr().out
