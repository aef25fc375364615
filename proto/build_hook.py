"""Make the Python stubs from the contracts, at install and by `make proto`.

The stubs are never committed: `pip install -e .` runs this as a build hook, so an installed
package always matches the `.proto` files beside it. Everything is made in a temporary folder and
swapped in last, so that a failed generation leaves the old stubs alone.
"""

from __future__ import annotations

import importlib
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # `make proto` needs protoc only
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parent.parent
RULES_PROTO = "buf/validate/validate.proto"
STUB_INIT = '"""Generated from {source}: messages, enums and stubs of the contract."""\n'


class ContractsError(Exception):
    """The contracts could not be compiled."""


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc,valid-type,unused-ignore]
    """Hatchling's hook: runs before files are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the stubs for whatever is being built (editable, wheel)."""
        generate(ROOT)


def run_protoc(arguments: list[str]) -> None:
    """Run protoc of the installed grpcio-tools with `arguments`; errors carry its own words."""
    well_known = importlib.resources.files("grpc_tools").joinpath("_proto")
    # protoc finds its plugins (mypy-protobuf) on PATH; the interpreter's own folder comes first
    # so that an isolated build uses the plugin it installed and not one of the machine.
    bins = [str(Path(sys.executable).parent), *_overlay_bins(), os.environ.get("PATH", "")]
    result = subprocess.run(  # noqa: S603 - the program is this interpreter
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{well_known}", *arguments],
        env={**os.environ, "PATH": os.pathsep.join(bins)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise ContractsError(f"protoc refused the contracts:\n{result.stderr.strip()}")


def _overlay_bins() -> list[str]:
    """Bin folders of an isolated build (pip puts requirements in an overlay on sys.path)."""
    return [
        str(Path(entry).parents[2] / "bin")
        for entry in sys.path
        if Path(entry).name == "site-packages" and (Path(entry).parents[2] / "bin").is_dir()
    ]


def write_rules(folder: Path) -> Path:
    """Write the descriptor set of the validation rules out of the installed protovalidate."""
    from protovalidate._gen.buf.validate import validate_pb

    rules = descriptor_pb2.FileDescriptorSet()
    for name in ("descriptor", "duration", "field_mask", "timestamp"):
        module = importlib.import_module(f"google.protobuf.{name}_pb2")
        module.DESCRIPTOR.CopyToProto(rules.file.add())
    rules.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    target = folder / "rules.binpb"
    target.write_bytes(rules.SerializeToString())
    return target


def strip_rules(full: Path, lean: Path) -> None:
    """Drop the import of the rules from our files, so that stubs do not import them.

    No package ships `buf.validate.validate_pb2` under that name for stubs to import; the rules
    themselves stay as option bytes, which protovalidate and reflection read.
    """
    contracts = descriptor_pb2.FileDescriptorSet.FromString(full.read_bytes())
    for file in contracts.file:
        if file.name.startswith("paymesh/") and RULES_PROTO in file.dependency:
            kept = [name for name in file.dependency if name != RULES_PROTO]
            del file.dependency[:]
            file.dependency.extend(kept)
    lean.write_bytes(contracts.SerializeToString())


def reexport(folder: Path, package: str) -> None:
    """Write the `__init__.py` of a stub package: every public name of every file, by name."""
    lines = [STUB_INIT.format(source=package), "\n"]
    exported: list[str] = []
    for module in sorted(folder.glob("*_pb2*.pyi")):
        text = module.read_text()
        names = re.findall(r"^class ([A-Z]\w*)", text, re.MULTILINE)
        names += re.findall(r"^([A-Z][A-Z0-9_]*): ", text, re.MULTILINE)
        names += re.findall(r"^def (add_\w+)\(", text, re.MULTILINE)
        names = sorted(
            {n for n in names if not n.endswith("EnumTypeWrapper") and n != "DESCRIPTOR"}
        )
        source = module.with_suffix("").name
        python = (folder / f"{source}.py").read_text()
        if source.endswith("_grpc"):
            names = [n for n in names if re.search(rf"^(class|def) {n}\b", python, re.MULTILINE)]
        if names:
            lines.append(f"from paymesh.{package}.{source} import (\n")
            lines.extend(f"    {name} as {name},\n" for name in names)
            lines.append(")\n")
            exported.extend(names)
        elif source.endswith("_service_pb2"):
            # Loads the service's descriptor, which reflection and readers of its options need.
            lines.append(f"from paymesh.{package} import {source} as {source}\n")
    if len(set(exported)) != len(exported):
        twice = sorted({n for n in exported if exported.count(n) > 1})
        raise ContractsError(f"paymesh.{package} defines {', '.join(twice)} twice")
    (folder / "__init__.py").write_text("".join(lines))


def drop_empty_services(folder: Path) -> None:
    """Remove the `_pb2_grpc` files of contracts that define no service."""
    for module in folder.rglob("*_pb2_grpc.py"):
        if "Servicer" not in module.read_text():
            module.unlink()
            module.with_suffix(".pyi").unlink(missing_ok=True)


def generate(root: Path) -> None:
    """Generate all stubs below `root/clients` and the image `root/build/contracts.binpb`."""
    proto = root / "proto"
    sources = sorted(str(path) for path in (proto / "paymesh").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        # `google.api` may be spread over several folders; the file itself says where it lies.
        annotations = importlib.import_module("google.api.annotations_pb2")
        googleapis = Path(str(annotations.__file__)).parents[2]
        full, lean, out = work / "full.binpb", work / "lean.binpb", work / "out"
        out.mkdir()
        run_protoc(
            [
                f"-I{proto}",
                f"-I{googleapis}",
                f"--descriptor_set_in={write_rules(work)}",
                "--include_imports",
                "--include_source_info",
                f"--descriptor_set_out={full}",
                *sources,
            ]
        )
        strip_rules(full, lean)
        names = [str(Path(source).relative_to(proto)) for source in sources]
        run_protoc(
            [
                f"--descriptor_set_in={lean}",
                f"--python_out={out}",
                f"--grpc_python_out={out}",
                f"--mypy_out=quiet:{out}",
                f"--mypy_grpc_out=quiet,only_async:{out}",
                *names,
            ]
        )
        drop_empty_services(out)
        for folder in sorted(out.glob("paymesh/*/v*")):
            reexport(folder, ".".join(folder.relative_to(out / "paymesh").parts))
        swap_in(out / "paymesh", root / "clients" / "paymesh")
        image = root / "build" / "contracts.binpb"
        image.parent.mkdir(exist_ok=True)
        shutil.copyfile(full, image)


def swap_in(made: Path, target: Path) -> None:
    """Replace every generated package below `target` by those below `made`."""
    for old in target.glob("*/v*"):
        if old.is_dir():
            shutil.rmtree(old)
    for new in sorted(made.glob("*/v*")):
        place = target / new.relative_to(made)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(new, place)


if __name__ == "__main__":
    try:
        generate(ROOT)
    except ContractsError as error:
        sys.exit(f"{error}\nFix the named .proto file and run `make proto` again.")
