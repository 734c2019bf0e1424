"""What callers of a release rely on, so that a change of the protos cannot take it from them.

Compares two sets of descriptors. What was there must stay, under the same name, number and type;
new things may come.
"""

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)


def broken_promises(then: FileDescriptorSet, now: FileDescriptorSet) -> list[str]:
    """One sentence for each thing of `then` that `now` lacks or has changed."""
    old, new = _Names(then), _Names(now)
    return [*_messages(old, new), *_enums(old, new), *_methods(old, new)]


class _Names:
    """Everything of ours by its full name."""

    def __init__(self, protos: FileDescriptorSet) -> None:
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.methods: dict[str, MethodDescriptorProto] = {}
        for file in protos.file:
            if file.name.startswith("google/"):
                continue
            self._collect(file.package, file.message_type, file.enum_type)
            for service in file.service:
                for method in service.method:
                    self.methods[f"{file.package}.{service.name}.{method.name}"] = method

    def _collect(self, scope: str, messages: object, enums: object) -> None:
        for enum in enums:  # type: ignore[attr-defined]
            self.enums[f"{scope}.{enum.name}"] = enum
        for message in messages:  # type: ignore[attr-defined]
            name = f"{scope}.{message.name}"
            self.messages[name] = message
            self._collect(name, message.nested_type, message.enum_type)


def _messages(old: _Names, new: _Names) -> Iterator[str]:
    for name, before in old.messages.items():
        after = new.messages.get(name)
        if after is None:
            yield f"{name}: the message is gone"
            continue
        numbers = {one.number: one for one in after.field}
        for one in before.field:
            kept = numbers.get(one.number)
            if kept is None:
                yield f"{name}.{one.name}: field {one.number} is gone or has another number"
                continue
            was, now = _field(one, before), _field(kept, after)
            yield from (
                f"{name}.{one.name}: field {one.number} had {what} {was[what]}, now {now[what]}"
                for what in was
                if was[what] != now[what]
            )


def _field(one: FieldDescriptorProto, message: DescriptorProto) -> dict[str, str]:
    kind = FieldDescriptorProto.Type.Name(one.type).removeprefix("TYPE_").lower()
    oneof = ""
    if one.HasField("oneof_index") and not one.proto3_optional:
        oneof = message.oneof_decl[one.oneof_index].name
    presence = "optional" if one.proto3_optional else "implicit"
    repeated = one.label == FieldDescriptorProto.LABEL_REPEATED
    return {
        "name": one.name,
        "type": one.type_name.removeprefix(".") or kind,
        "cardinality": "repeated" if repeated else presence,
        "oneof": oneof or "none",
    }


def _enums(old: _Names, new: _Names) -> Iterator[str]:
    for name, before in old.enums.items():
        after = new.enums.get(name)
        if after is None:
            yield f"{name}: the enum is gone"
            continue
        values = {value.name: value.number for value in after.value}
        for value in before.value:
            if values.get(value.name) != value.number:
                yield f"{name}.{value.name}: the value {value.number} is gone or has another number"


def _methods(old: _Names, new: _Names) -> Iterator[str]:
    for name, before in old.methods.items():
        after = new.methods.get(name)
        if after is None:
            yield f"{name}: the call is gone"
        elif _shape(before) != _shape(after):
            yield f"{name}: was {_shape(before)}, now {_shape(after)}"


def _shape(method: MethodDescriptorProto) -> str:
    takes = f"{'stream ' if method.client_streaming else ''}{method.input_type.removeprefix('.')}"
    gives = f"{'stream ' if method.server_streaming else ''}{method.output_type.removeprefix('.')}"
    return f"({takes}) returns ({gives})"
