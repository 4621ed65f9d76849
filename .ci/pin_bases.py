"""Print deploy/Dockerfile with each base image pinned by its present digest; needs docker buildx.

    python .ci/pin_bases.py >Dockerfile.pinned

The Dockerfile in the repository names bases by tags, so that the next build uses an updated base.
A released image is built from the printed file, which records the digests.
"""

import re
import subprocess
import sys
from pathlib import Path

DOCKERFILE = Path(__file__).parents[1] / "deploy/Dockerfile"
BASE = re.compile(
    r"^FROM(?P<options>(?: --\S+)*) (?P<image>\S+)(?P<alias> AS (?P<stage>\S+))?$",
    re.MULTILINE | re.IGNORECASE,
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def resolve_digest(image: str) -> str:
    """The digest of an image with all its platforms. Raises ValueError if docker prints none."""
    command = ["docker", "buildx", "imagetools", "inspect", "--format={{.Manifest.Digest}}", image]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    digest = result.stdout.strip()
    if result.returncode or not DIGEST.fullmatch(digest):
        raise ValueError(f"{image}: no digest: {(result.stderr or digest).strip()}")
    return digest


def pin_bases(dockerfile: str) -> str:
    """The Dockerfile with `image:tag@digest` for each base that is not an earlier stage."""
    stages = {match["stage"] for match in BASE.finditer(dockerfile) if match["stage"]}
    images = {match["image"] for match in BASE.finditer(dockerfile)} - stages
    digests = {image: resolve_digest(image) for image in sorted(images)}

    def pin_base(match: re.Match[str]) -> str:
        image = match["image"]
        suffix = f"@{digests[image]}" if image in digests else ""
        return f"FROM{match['options']} {image}{suffix}{match['alias'] or ''}"

    return BASE.sub(pin_base, dockerfile)


def main() -> int:
    try:
        print(pin_bases(DOCKERFILE.read_text()), end="")
    except ValueError as error:
        print(f"pin_bases: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
