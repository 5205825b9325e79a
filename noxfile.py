"""The project's checks, each in a fresh environment: ``nox -l`` lists them, ``nox -s lint`` runs one."""

import sys
import tempfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests", "wheel", "lowest_torch", "pythons"]
nox.options.error_on_missing_interpreters = False

ENGINE = [
    "se_inject",
    *(f"tests/{room}" for room in ("files", "gate", "layouts", "sites", "source", "surgery", "tracing")),
    "tests/test_inject.py",
    "tests/test_optimize.py",
]
# what reads and edits code; the rest hangs on torch, not on Python
ON_OTHER_PYTHONS = [
    "se_inject",
    *(f"tests/{room}" for room in ("sites", "source", "surgery", "tracing")),
    "tests/test_inject.py",
    "--ignore=tests/sites/test_traced.py",
]
# with torch alone
CORE = [
    "tests/tracing",
    "tests/source/test_rounds.py",
    "tests/sites/test_right_places.py",
    "tests/surgery/test_transaction.py",
]


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, the format, and the import contracts."""
    session.install("ruff>=0.11", "import-linter>=2.1")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", env={"PYTHONPATH": "."})


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The fast suite, as the README has it."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "2")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build wheel and sdist; try the wheel alone, with torch only, and the sdist's own tests of the core."""
    folder = Path(tempfile.mkdtemp())
    session.install("build>=1.2")
    session.run("python", "-m", "build", "--outdir", str(folder), ".")
    [built], [archive] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    session.install(str(built))
    smoke = (Path(".ci") / "smoke.py").resolve()
    session.chdir(folder)
    session.run("python", "-I", str(smoke))
    session.run("tar", "xf", str(archive), external=True)
    [source] = (path for path in folder.iterdir() if path.is_dir())
    session.install(f"{source}[core-test]")
    session.chdir(source)
    session.run("pytest", *CORE)


@nox.session
def lowest_torch(session: nox.Session) -> None:
    """The engine's tests with the oldest torch."""
    session.install("-e", ".[test]", "torch==2.6.*", "torchvision==0.21.*")
    session.run("pytest", "-n", "2", *ENGINE)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """The engine's tests on the other Pythons that are here."""
    if session.python == f"{sys.version_info.major}.{sys.version_info.minor}":
        session.skip("all tests run on this one")
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "2", *ON_OTHER_PYTHONS)


@nox.session(default=False)
def integrations(session: nox.Session) -> None:
    """What docs/deployment.md says of libraries that the tests do without otherwise."""
    session.install("-e", ".[test,integrations]")
    session.run("pytest", "tests/deployment", "se_inject/integrations")


@nox.session(default=False)
def zoo(session: nox.Session) -> None:
    """Every model of torchvision, timm and pytorchcv; writes docs/zoo.md."""
    session.install("-e", ".[zoo]")
    session.run("python", "-m", "tests.zoo", *session.posargs)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Generated modules with odd forwards, put to the promises."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.fuzz", *(session.posargs or ["10000", "--processes", "2"]))
