"""Lint of proto/: the standard naming rules of the field, and a comment on everything."""

import re

from google.protobuf import descriptor_pb2

# Streams of batches share one message on purpose.
SHARED_RESPONSE = "BatchPart"
PASCAL = re.compile(r"(?:[A-Z][a-z0-9]*)+")
SNAKE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
MESSAGE, ENUM, SERVICE = 4, 5, 6  # field numbers of FileDescriptorProto: the paths of comments begin with them
FIELD, NESTED, NESTED_ENUM, ONEOF = 2, 3, 4, 8  # of DescriptorProto


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def messages(file):
    """Every message with its path, nested ones too, without those that protoc makes for maps."""
    stack = [((MESSAGE, i), m) for i, m in enumerate(file.message_type)]
    while stack:
        path, message = stack.pop()
        if not message.options.map_entry:
            yield path, message
            stack += [((*path, NESTED, i), m) for i, m in enumerate(message.nested_type)]


def enums(file):
    yield from (((ENUM, i), e) for i, e in enumerate(file.enum_type))
    for path, message in messages(file):
        yield from (((*path, NESTED_ENUM, i), e) for i, e in enumerate(message.enum_type))


def commented(file):
    """Every place that wants a comment, with its name."""
    for path, message in messages(file):
        yield path, message.name
        yield from (((*path, FIELD, i), f"{message.name}.{f.name}") for i, f in enumerate(message.field))
        yield from (((*path, ONEOF, i), f"{message.name}.{o.name}") for i, o in enumerate(real_oneofs(message)))
    for path, enum in enums(file):
        yield path, enum.name
        yield from (((*path, 2, i), v.name) for i, v in enumerate(enum.value))
    for i, service in enumerate(file.service):
        yield (SERVICE, i), service.name
        yield from (((SERVICE, i, 2, k), f"{service.name}.{m.name}") for k, m in enumerate(service.method))


def real_oneofs(message):
    """Without those that protoc makes for `optional`, which come last."""
    made = {f.oneof_index for f in message.field if f.proto3_optional}
    return [o for i, o in enumerate(message.oneof_decl) if i not in made]


def test_everything_has_a_comment(descriptors):
    assert len(descriptors.file) >= 4
    bare = []
    for file in descriptors.file:
        comments = {tuple(l.path): l.leading_comments.strip() for l in file.source_code_info.location}
        bare += [f"{file.name}: {name}" for path, name in commented(file) if not comments.get(path)]
    assert bare == []


def test_files_stand_where_their_package_says(descriptors):
    for file in descriptors.file:
        assert file.package == "mixfeed.v1" and file.syntax == "proto3"
        assert re.fullmatch(r"mixfeed/v1/[a-z_]+\.proto", file.name)


def test_names_of_messages_and_fields(descriptors):
    for file in descriptors.file:
        for _, message in messages(file):
            assert PASCAL.fullmatch(message.name), message.name
            for field in message.field:
                assert SNAKE.fullmatch(field.name), f"{message.name}.{field.name}"
                assert field.label != descriptor_pb2.FieldDescriptorProto.LABEL_REQUIRED
            for oneof in real_oneofs(message):
                assert SNAKE.fullmatch(oneof.name), f"{message.name}.{oneof.name}"


def test_names_of_enum_values(descriptors):
    for file in descriptors.file:
        for _, enum in enums(file):
            prefix = snake(enum.name).upper() + "_"
            assert PASCAL.fullmatch(enum.name), enum.name
            assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}UNSPECIFIED", 0)
            assert all(re.fullmatch(prefix + r"[A-Z0-9]+(?:_[A-Z0-9]+)*", v.name) for v in enum.value), enum.name


def test_names_of_services_and_calls(descriptors):
    services = [service for file in descriptors.file for service in file.service]
    assert services
    for service in services:
        assert PASCAL.fullmatch(service.name) and service.name.endswith("Service")
        for method in service.method:
            assert method.input_type == f".mixfeed.v1.{method.name}Request"
            names = {f".mixfeed.v1.{method.name}Response"}
            if service.name == "FeedService" and method.server_streaming:
                names = {f".mixfeed.v1.{SHARED_RESPONSE}"}
            assert method.output_type in names
