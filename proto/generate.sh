#!/usr/bin/env bash
# Regenerates replaystore/v1/ from proto/replaystore/v1/*.proto.
#
# The generator is pinned and old on purpose: stubs of a newer one refuse to run with an older protobuf, the other way round is fine.
# Usage: proto/generate.sh [OUTPUT_ROOT]   PYTHON=python3 chooses the interpreter (one with grpcio-tools 1.71.2 is used as it is).
set -euo pipefail
version=1.71.2
root=$(cd "$(dirname "$0")/.." && pwd)
output=${1:-$root}
python=${PYTHON:-python3}
if ! "$python" -c "import grpc_tools, importlib.metadata as m; assert m.version('grpcio-tools') == '$version'" 2>/dev/null; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  "$python" -m venv "$scratch"
  "$scratch/bin/pip" install --quiet --disable-pip-version-check "grpcio-tools==$version" "setuptools<81"
  python=$scratch/bin/python
fi
mkdir -p "$output/replaystore/v1"
cd "$root/proto"
"$python" -m grpc_tools.protoc -I . --python_out="$output" --pyi_out="$output" replaystore/v1/*.proto
sha256sum replaystore/v1/*.proto > "$output/replaystore/v1/SOURCES.sha256"
