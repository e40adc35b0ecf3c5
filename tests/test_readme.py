"""What the README shows in Python runs as it stands there."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
SECTION = re.search(r"^## In Python$(.*?)^## ", README.read_text("utf-8"), re.M | re.S)[1]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", SECTION, re.M | re.S)


def test_a_reader_gets_what_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:  # each goes on where the one before it ended
        exec(block, names)
        assert capsys.readouterr().out
    assert len(BLOCKS) == 2
