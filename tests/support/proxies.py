"""Runs nginx, Caddy and Traefik with the configurations of docs/proxies.md."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .certificates import Authority
from .preloaded import ROOT
from .processes import end_process
from .waiting import eventually

# The addresses of jobmon and of a sign-in service in docs/proxies.md.
UPSTREAM, VERIFY = "127.0.0.1:8000", "127.0.0.1:9000"


@dataclass(frozen=True)
class Site:
    """A host that a proxy serves on a port of this machine.

    `origin` is the site's origin for browsers; its port may differ from `port`. `configuration` is
    a code block of docs/proxies.md: its text, or for Traefik its parsed YAML.
    """

    origin: str
    port: int
    configuration: str | Mapping[str, Any]

    @property
    def host(self) -> str:
        return self.origin.partition("://")[2].partition(":")[0]

    @property
    def is_secure(self) -> bool:
        return self.origin.startswith("https:")


def read_blocks(language: str, heading: str, page: str = "proxies") -> list[str]:
    """The code blocks in this language in a section of docs/PAGE.md."""
    text = (ROOT / f"docs/{page}.md").read_text()
    _, separator, section = text.partition(f"\n## {heading}\n")
    assert separator, f"no section {heading}"
    section = section.partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def find_program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


@contextmanager
def run_nginx(program: str, sites: Sequence[Site], folder: Path) -> Iterator[None]:
    """Run nginx with a server for each site; move `limit_conn_zone` lines to the `http` block."""
    certificate, _ = Authority("nginx", folder).issue("server")
    zones: dict[str, None] = {}
    servers = ""
    for site in sites:
        assert isinstance(site.configuration, str)
        lines = site.configuration.splitlines()
        zones |= dict.fromkeys(line for line in lines if line.startswith("limit_conn_zone"))
        tls = " ssl" if site.is_secure else ""
        body = "\n".join(line for line in lines if line not in zones)
        servers += f"server {{ listen 127.0.0.1:{site.port}{tls};\n{body}\n}}\n"
    paths = "".join(
        f"{name}_temp_path {folder / name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder / 'pid'}; error_log {folder / 'log'};\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}"
        f"ssl_certificate {certificate}; ssl_certificate_key {certificate};\n"
        + "\n".join(zones)
        + f"\n{servers}}}\n"
    )
    with _running([program, "-p", str(folder), "-c", str(file)], sites, folder):
        yield


@contextmanager
def run_caddy(program: str, sites: Sequence[Site], folder: Path) -> Iterator[None]:
    """Run Caddy; replace the host of each block by the site's address, and add a certificate."""
    certificate, _ = Authority("caddy", folder).issue("server")
    text = "{\nadmin off\nauto_https off\nskip_install_trust\n}\n"
    for site in sites:
        assert isinstance(site.configuration, str)
        scheme = site.origin.partition(":")[0]
        site_header = f"{scheme}://{site.host}:{site.port} {{\nbind 127.0.0.1\n"
        site_header += f"tls {certificate} {certificate}\n" if site.is_secure else ""
        text += re.sub(r"^\S+ \{\n", lambda _: site_header, site.configuration)  # noqa: B023
    file = folder / "Caddyfile"
    file.write_text(text)
    command = [program, "run", "--config", str(file), "--adapter", "caddyfile"]
    with _running(command, sites, folder, HOME=str(folder), XDG_DATA_HOME=str(folder)):
        yield


@contextmanager
def run_traefik(program: str, sites: Sequence[Site], folder: Path) -> Iterator[None]:
    """Run Traefik with an entry point for each site; append the site's index to all names."""
    dynamic: dict[str, Any] = {"routers": {}, "services": {}, "middlewares": {}}
    for index, site in enumerate(sites):
        assert not isinstance(site.configuration, str)
        for kind, sections in site.configuration["http"].items():
            dynamic[kind] |= {f"{name}{index}": dict(value) for name, value in sections.items()}
        router = dynamic["routers"][f"jobmon{index}"]
        router["rule"] = re.sub(r"Host\(`[^`]*`\)", f"Host(`{site.host}`)", router["rule"])
        router |= {"service": f"jobmon{index}", "entryPoints": [f"site{index}"]}
        router["middlewares"] = [f"{name}{index}" for name in router.get("middlewares", ())]
        if not site.is_secure:
            del router["tls"]
    if not dynamic["middlewares"]:
        del dynamic["middlewares"]
    (folder / "dynamic.yml").write_text(yaml.safe_dump({"http": dynamic}))
    command = [program, f"--providers.file.filename={folder / 'dynamic.yml'}"]
    command += ["--global.checknewversion=false", "--global.sendanonymoususage=false"]
    for index, site in enumerate(sites):
        command.append(f"--entryPoints.site{index}.address=127.0.0.1:{site.port}")
    with _running(command, sites, folder):
        yield


@contextmanager
def _running(
    command: list[str], sites: Sequence[Site], folder: Path, **environment: str
) -> Iterator[None]:
    log = folder / "output"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment or None)

    def accepts() -> bool:
        assert process.poll() is None, log.read_text()
        for site in sites:
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", site.port)):
                    return False
        return True

    try:
        eventually(accepts)
        yield
    finally:
        end_process(process)
