"""Compression: catches a file that is compressed for each request, an encoding that the caller
does not accept, and an ETag that is not recognized."""

import gzip
from typing import Any

import brotli
import pytest

from jobmon.dashboard import assets

from ..conftest import Api

FILES = ("/dashboard/static/jobmon.css", "/dashboard/static/jobmon.js", "/openapi.json")


@pytest.fixture
def original_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes in bytes, before compression, of the contents that the test compresses."""
    sizes: list[int] = []
    assets._read_files.cache_clear()
    for library in (brotli, gzip):
        compress = library.compress

        def record(content: bytes, *, _compress: Any = compress, **options: Any) -> bytes:
            sizes.append(len(content))
            return bytes(_compress(content, **options))

        monkeypatch.setattr(library, "compress", record)
    return sizes


@pytest.mark.parametrize("path", FILES)
def test_file_is_compressed_once_per_encoding(
    api: Api, original_sizes: list[int], path: str
) -> None:
    uncompressed = api.client.get(path)
    assert "Content-Encoding" not in uncompressed.headers
    for encoding, decode in (("br", brotli.decompress), ("gzip", gzip.decompress)):
        for _ in range(3):
            answer = api.client.get(path, headers={"Accept-Encoding": f"{encoding}, x"})
            assert answer.headers["Content-Encoding"] == encoding
            assert decode(answer.data) == uncompressed.data
            assert answer.headers["ETag"] != uncompressed.headers["ETag"]
            assert "Accept-Encoding" in answer.headers["Vary"]
            headers = {"Accept-Encoding": encoding, "If-None-Match": answer.headers["ETag"]}
            unchanged = api.client.get(path, headers=headers)
            assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert original_sizes == [len(uncompressed.data)] * 2


@pytest.mark.parametrize("accepted", ["identity", "zstd", "", "gzip;q=0", "br;q=0, gzip;q=0.0"])
def test_caller_that_accepts_no_known_encoding_gets_the_uncompressed_file(
    api: Api, accepted: str
) -> None:
    answer = api.client.get(FILES[0], headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in answer.headers
    assert answer.data.startswith((assets.FOLDER / "jobmon.css").read_bytes()[:100])


def test_small_file_is_not_compressed(api: Api) -> None:
    answer = api.client.get("/dashboard/static/icon.svg", headers={"Accept-Encoding": "br"})
    assert "Content-Encoding" not in answer.headers
