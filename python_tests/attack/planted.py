"""A kind of input that ends in every way there is: what finds none of them finds nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random

import numpy as np
from workers import Nonsense

ENDINGS = {
    "read": "",
    "refused": "/x/file.txt, line 3: wanted a number",
    "traceback": "KeyError",
    "names no file": "wanted a number",
    "two lines": "file.txt: wrong\nvery wrong",
    "hang": "",
    "memory": "",
    "nonsense": "labels 7",
    "died": "",
}


class Planted:
    def __init__(self, ending: str, folder: Path) -> None:
        self.ending = ending

    def damage(self, random: Random) -> None: ...

    def names(self) -> Iterable[str]:
        return ("file.txt",)

    def read(self) -> None:
        match self.ending:
            case "refused" | "names no file" | "two lines":
                raise ValueError(ENDINGS[self.ending])
            case "traceback":
                {}["x"]
            case "hang":
                time.sleep(1000)
            case "memory":
                np.zeros(100 << 30)
            case "nonsense":
                raise Nonsense(ENDINGS[self.ending])
            case "died":
                os.kill(os.getpid(), signal.SIGSEGV)
