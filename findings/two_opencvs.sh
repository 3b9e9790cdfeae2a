#!/usr/bin/env bash
# mediapipe 1.2.3 (brings opencv-contrib-python 5.1.0.95) beside opencv-python-headless 5.0.0.93.
#
# Packages of OpenCV share the folder cv2, and pip lets them overwrite each other. What runs is the last one installed; pip lists
# both. Removing either removes files of the other: `import cv2` fails, or, worse, gives an empty namespace package without
# an error, which shows when imread is called. It is mended by installing the one that stays again, as shown.
# Source: opencv-python's README ("install only one of them"), opencv-python#467, mediapipe#6121.
#
# Output seen:
#   both installed: cv2 is 5.1.0, pip lists opencv-contrib-python and opencv-python-headless
#   opencv-contrib-python removed: cv2 cannot be imported        opencv-python-headless removed: cv2 is empty
#   the other installed again: cv2 is 5.0.0                      the other installed again: cv2 is 5.1.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip)

state() {
  "$work/venv/bin/python" - <<'PYTHON'
try:
    import cv2
except ImportError:
    print("cannot be imported")
else:
    print(f"is {cv2.__version__}" if hasattr(cv2, "imread") else "is empty")
PYTHON
}

expect() {
  local now
  now=$(state)
  echo "$1: cv2 $now"
  [ "$now" = "$2" ] || { echo "it was: $2"; exit 1; }
}

"${pip[@]}" install -qq numpy==2.4.6 opencv-python-headless==5.0.0.93
"${pip[@]}" install -qq mediapipe==1.2.3 opencv-contrib-python==5.1.0.95
expect "both installed" "is 5.1.0"
"${pip[@]}" uninstall -qq -y opencv-contrib-python
expect "opencv-contrib-python removed" "cannot be imported"
"${pip[@]}" install -qq --force-reinstall --no-deps opencv-python-headless==5.0.0.93
expect "the other installed again" "is 5.0.0"
"${pip[@]}" install -qq opencv-contrib-python==5.1.0.95
"${pip[@]}" uninstall -qq -y opencv-python-headless
expect "opencv-python-headless removed" "is empty"
"${pip[@]}" install -qq --force-reinstall --no-deps opencv-contrib-python==5.1.0.95
expect "the other installed again" "is 5.1.0"
