"""The style of our protos: buf's STANDARD rules that matter here, and a comment on everything.

Works on descriptors with source information; leaves reading files to `tools.protos`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

Path = tuple[int, ...]
"""Where a thing stands in its file: field numbers and indexes, as in SourceCodeInfo.Location."""

SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")
UPPER = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
VERSION = re.compile(r"v[1-9][0-9]*")


OTHERS = ("google/", "externalscaler/")
"""Contracts of others, whose names and numbers are not ours to choose."""


def style_problems(protos: FileDescriptorSet) -> list[str]:
    """One sentence for each broken rule: file, line, name, rule."""
    ours = [file for file in protos.file if not file.name.startswith(OTHERS)]
    return [problem for file in ours for problem in _File(file).problems()]


@dataclass
class _File:
    file: FileDescriptorProto
    lines: dict[Path, int] = field(default_factory=dict)
    commented: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        for location in self.file.source_code_info.location:
            path = tuple(location.path)
            self.lines[path] = location.span[0] + 1
            if location.leading_comments.strip():
                self.commented.add(path)

    def problems(self) -> Iterator[str]:
        file = self.file
        folder = file.name.rpartition("/")[0]
        if file.package != folder.replace("/", "."):
            yield self._say((2,), file.package, f"the package of a file in {folder} is its folder")
        if not VERSION.fullmatch(file.package.rpartition(".")[2]):
            yield self._say((2,), file.package, "a package ends in its version, such as v1")
        for index, name in enumerate(file.dependency):
            if not name.startswith("google/protobuf/"):
                yield self._say((3, index), name, "only google/protobuf/* may be imported")
        for index, message in enumerate(file.message_type):
            yield from self._message(message, (4, index))
        for index, enum in enumerate(file.enum_type):
            yield from self._enum(enum, (5, index))
        for index, service in enumerate(file.service):
            yield from self._service(service, (6, index))
        yield from self._shared_requests()

    def _say(self, path: Path, name: str, rule: str) -> str:
        return f"protos/{self.file.name}:{self.lines.get(path, 1)}: {name}: {rule}"

    def _named(self, path: Path, name: str, pattern: re.Pattern[str], like: str) -> Iterator[str]:
        if not pattern.fullmatch(name):
            yield self._say(path, name, f"is written {like}")
        if path not in self.commented:
            yield self._say(path, name, "has a comment above it that says what it promises")

    def _message(self, message: DescriptorProto, path: Path) -> Iterator[str]:
        if message.options.map_entry:
            return
        yield from self._named(path, message.name, PASCAL, "LikeThis")
        for index, one in enumerate(message.field):
            yield from self._named((*path, 2, index), f"{one.name}", SNAKE, "like_this")
        for index, oneof in enumerate(message.oneof_decl):
            if not oneof.name.startswith("_"):  # those are made for `optional`
                yield from self._named((*path, 8, index), oneof.name, SNAKE, "like_this")
        for index, nested in enumerate(message.nested_type):
            yield from self._message(nested, (*path, 3, index))
        for index, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*path, 4, index))

    def _enum(self, enum: EnumDescriptorProto, path: Path) -> Iterator[str]:
        yield from self._named(path, enum.name, PASCAL, "LikeThis")
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
        for index, value in enumerate(enum.value):
            at = (*path, 2, index)
            yield from self._named(at, value.name, UPPER, "LIKE_THIS")
            if not value.name.startswith(prefix):
                yield self._say(at, value.name, f"starts with {prefix}")
            if value.number == 0 and value.name != f"{prefix}UNSPECIFIED":
                yield self._say(at, value.name, f"the value 0 is {prefix}UNSPECIFIED")

    def _service(self, service: ServiceDescriptorProto, path: Path) -> Iterator[str]:
        yield from self._named(path, service.name, PASCAL, "LikeThis")
        if not service.name.endswith("Service"):
            yield self._say(path, service.name, "ends in Service")
        for index, method in enumerate(service.method):
            at = (*path, 2, index)
            yield from self._named(at, method.name, PASCAL, "LikeThis")
            for kind, full_name in (
                ("Request", method.input_type),
                ("Response", method.output_type),
            ):
                if full_name.rpartition(".")[2] != f"{method.name}{kind}":
                    yield self._say(at, method.name, f"has a {method.name}{kind} of its own")

    def _shared_requests(self) -> Iterator[str]:
        seen: dict[str, str] = {}
        for s, service in enumerate(self.file.service):
            for m, method in enumerate(service.method):
                for used in (method.input_type, method.output_type):
                    if used in seen:
                        name = used.rpartition(".")[2]
                        rule = f"shares {name} with {seen[used]}; each call has its own"
                        yield self._say((6, s, 2, m), method.name, rule)
                    seen.setdefault(used, method.name)
