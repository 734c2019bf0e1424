"""Each rule about the protos can fail, and the committed protos and stubs break none."""

import shutil
from pathlib import Path

import pytest

from tools import protos
from tools.proto_promises import broken_promises
from tools.proto_style import style_problems

GOOD = """\
syntax = "proto3";
package shop.v1;
import "google/protobuf/duration.proto";

// Sells.
service ShopService {
  // Sells one thing.
  rpc Buy(BuyRequest) returns (stream BuyResponse);
  // Takes it back.
  rpc Return(ReturnRequest) returns (ReturnResponse);
}

// What it is made of.
enum RawMaterial {
  // Never sent.
  RAW_MATERIAL_UNSPECIFIED = 0;
  // Trees.
  RAW_MATERIAL_WOOD = 1;
}

// Asks.
message BuyRequest {
  // What.
  string thing_name = 1;
  // How long one may wait. Absent: for ever.
  google.protobuf.Duration patience = 2;
  // How many. Absent: one.
  optional int32 count = 3;
  // Exactly one is set.
  oneof payment {
    // Micro-USD.
    int64 cash = 4;
    // A number.
    string card = 5;
  }
  // Of what.
  RawMaterial material = 6;
  // Free labels.
  map<string, string> labels = 7;
}

// Given.
message BuyResponse {}

// Asks.
message ReturnRequest {}

// Done.
message ReturnResponse {}
"""


def described(folder: Path, text: str, at: str = "shop/v1/shop.proto") -> object:
    path = folder / at
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return protos.describe(folder)


def test_a_good_proto_breaks_no_rule(tmp_path: Path) -> None:
    assert style_problems(described(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("package shop.v1", "package store.v1", "shop.proto:2: store.v1: the package of a file"),
        ("  // What.\n", "", "shop.proto:23: thing_name: has a comment above it"),
        ("  // Trees.\n", "", "RAW_MATERIAL_WOOD: has a comment"),
        ("  // Takes it back.\n", "", "Return: has a comment"),
        ("  // Exactly one is set.\n", "", "payment: has a comment"),
        ("// Given.\n", "", "BuyResponse: has a comment"),
        ("thing_name", "thingName", "thingName: is written like_this"),
        ("RAW_MATERIAL_WOOD", "WOOD", "WOOD: starts with RAW_MATERIAL_"),
        ("RAW_MATERIAL_WOOD", "RAW_MATERIAL_Wood", "RAW_MATERIAL_Wood: is written LIKE_THIS"),
        (
            "RAW_MATERIAL_UNSPECIFIED",
            "RAW_MATERIAL_NONE",
            "RAW_MATERIAL_NONE: the value 0 is RAW_MATERIAL_UNSPECIFIED",
        ),
        ("ShopService", "Shop", "Shop: ends in Service"),
        ("(ReturnRequest)", "(BuyRequest)", "Return: has a ReturnRequest of its own"),
        ("(ReturnRequest)", "(BuyRequest)", "Return: shares BuyRequest with Buy"),
        ("rpc Return", "rpc give_back", "give_back: is written LikeThis"),
    ],
)
def test_each_rule_of_style_can_fail(tmp_path: Path, old: str, new: str, problem: str) -> None:
    changed = GOOD.replace(old, new)
    assert changed != GOOD
    assert any(problem in one for one in style_problems(described(tmp_path, changed)))


def test_a_package_ends_in_its_version(tmp_path: Path) -> None:
    changed = GOOD.replace("shop.v1", "shop")
    problems = style_problems(described(tmp_path, changed, at="shop/shop.proto"))
    assert any("a package ends in its version" in one for one in problems)


def test_only_googles_protos_are_imported(tmp_path: Path) -> None:
    other = tmp_path / "other/v1/other.proto"
    other.parent.mkdir(parents=True)
    other.write_text('syntax = "proto3";\npackage other.v1;\n')
    changed = GOOD.replace("google/protobuf/duration.proto", "other/v1/other.proto")
    changed = changed.replace("google.protobuf.Duration", "string")
    problems = style_problems(described(tmp_path, changed))
    assert any("only google/protobuf/* may be imported" in one for one in problems)


def test_new_things_break_no_promise(tmp_path: Path) -> None:
    more = GOOD.replace("message BuyResponse {}", "message BuyResponse { string receipt = 1; }")
    more = more.replace("RAW_MATERIAL_WOOD = 1;", "RAW_MATERIAL_WOOD = 1; RAW_MATERIAL_IRON = 2;")
    then = described(tmp_path / "then", GOOD)
    assert broken_promises(then, described(tmp_path / "now", more)) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("  string thing_name = 1;\n", "", "BuyRequest.thing_name: field 1 is gone"),
        ("thing_name = 1", "thing_name = 9", "BuyRequest.thing_name: field 1 is gone or has"),
        ("thing_name = 1", "name = 1", "field 1 had name thing_name, now name"),
        ("string thing_name", "bytes thing_name", "field 1 had type string, now bytes"),
        ("string thing_name", "repeated string thing_name", "had cardinality implicit, now repeat"),
        ("optional int32 count", "int32 count", "had cardinality optional, now implicit"),
        ("oneof payment", "oneof means", "cash: field 4 had oneof payment, now means"),
        ("RawMaterial material", "int32 material", "had type shop.v1.RawMaterial, now int32"),
        ("map<string, string> labels", "map<string, int32> labels", "had type string, now int32"),
        ("  RAW_MATERIAL_WOOD = 1;\n", "", "RAW_MATERIAL_WOOD: the value 1 is gone"),
        (
            "RAW_MATERIAL_WOOD = 1",
            "RAW_MATERIAL_WOOD = 2",
            "RAW_MATERIAL_WOOD: the value 1 is gone",
        ),
        ("RawMaterial", "Material", "shop.v1.RawMaterial: the enum is gone"),
        ("returns (stream BuyResponse)", "returns (BuyResponse)", "Buy: was (shop.v1.BuyRequest)"),
        ("rpc Return(", "rpc Refund(", "ShopService.Return: the call is gone"),
        ("BuyResponse", "BuyAnswer", "shop.v1.BuyResponse: the message is gone"),
    ],
)
def test_each_promise_can_be_broken(tmp_path: Path, old: str, new: str, problem: str) -> None:
    changed = GOOD.replace(old, new)
    assert changed != GOOD
    then = described(tmp_path / "then", GOOD)
    found = broken_promises(then, described(tmp_path / "now", changed))
    assert any(problem in one for one in found), found


def test_the_committed_protos_and_stubs_are_fine() -> None:
    assert protos.check() == []


def test_a_stub_that_was_edited_removed_or_left_over_is_found(tmp_path: Path) -> None:
    for package in protos.PACKAGES:
        shutil.copytree(protos.ROOT / package, tmp_path / package)
    name = "pennyweight/router/v1"
    folder = tmp_path / name
    (folder / "router_pb2.py").write_text("# edited\n")
    (folder / "router_pb2_grpc.pyi").unlink()
    (folder / "gone_pb2.py").write_text("")
    assert list(protos.stale_stubs(tmp_path)) == [
        f"{name}/gone_pb2.py: no proto generates it; delete it",
        f"{name}/router_pb2.py: not what the protos generate; run `make protos`",
        f"{name}/router_pb2_grpc.pyi: not what the protos generate; run `make protos`",
    ]


def test_a_proto_that_does_not_compile_stops_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"shop\.proto:1:1"):
        described(tmp_path, "nonsense")
