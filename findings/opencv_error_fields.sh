#!/usr/bin/env bash
# The fields of a caught `cv2.error` change when OpenCV fails again: they are the class', not the exception's.
#
# opencv-python-headless 5.0.0.93 and 4.10.0.84. `error.err`, `.func`, `.line` and `.code` are documented nowhere as shared, and read
# as if they told of this exception. OpenCV's binding sets them on the class `cv2.error` before it raises
# (modules/python/src2/cv2_util.cpp, pyRaiseCVException), so that any later failure, in any thread, also one that is
# caught, rewrites those of exceptions that are kept or being handled. `str(error)` stays as it was.
#
# Seen, in both versions:
#   caught   func resize
#   later    func medianBlur
#   str      ... in function 'resize'
#   in a thread that handles its own error: func medianBlur, str 'resize'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/see.py" <<'PY'
import threading

import cv2
import numpy as np


def fails(call):
    try:
        call()
    except cv2.error as error:
        return error
    raise SystemExit("wanted an error")


def resize():
    cv2.resize(np.zeros((4, 4), np.uint8), (0, 0))


def blur():
    cv2.medianBlur(np.zeros((4, 4), np.uint8), 2)  # an even size


print(cv2.__version__)
first = fails(resize)
print("caught  ", "func", first.func)
assert first.func == "resize"
fails(blur)
print("later   ", "func", first.func)
print("str     ", str(first).strip()[-24:])
assert first.func == "medianBlur" and "'resize'" in str(first)
assert "func" not in vars(first) and "func" in vars(cv2.error)

failed, other_failed, seen = threading.Event(), threading.Event(), []


def handles():
    try:
        resize()
    except cv2.error as error:
        failed.set()
        other_failed.wait()  # whatever a handler does: write a log, release a camera
        seen.extend((error.func, str(error)))


thread = threading.Thread(target=handles)
thread.start()
failed.wait()
fails(blur)
other_failed.set()
thread.join()
print("in a thread that handles its own error: func", seen[0])
assert seen[0] == "medianBlur" and "'resize'" in seen[1]
PY
python3 -m venv "$folder/env"
for version in 4.10.0.84 5.0.0.93; do
  "$folder/env/bin/pip" install -q "opencv-python-headless==$version"
  "$folder/env/bin/python" "$folder/see.py"
done
