"""Every error of the Rust client has a class of its name."""

import pickle
import re

import pytest
from server import ROOT

import mixfeed
from mixfeed import errors

TEXT = (ROOT / "client/src/error.rs").read_text()
NAMES = re.findall(r'=> "(\w+)",', TEXT[TEXT.index("pub fn name(") : TEXT.index("pub fn is_transient")])


def test_names_are_those_of_the_variants():
    enum = TEXT[TEXT.index("pub enum Error {") :]
    enum = enum[: enum.index("\n}")]
    assert re.findall(r"^    (\w+)[ (,{]", enum, re.M) == NAMES and len(NAMES) > 10


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_has_a_class(name):
    made = getattr(errors, name)("what happened")
    assert isinstance(made, mixfeed.Error) and str(made) == "what happened"
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made) and str(again) == str(made)
    assert name in mixfeed.__all__ or name == "Tensor"


def test_classes_fit_what_python_programs_catch():
    assert issubclass(mixfeed.Unavailable, ConnectionError) and issubclass(mixfeed.Denied, PermissionError)
    assert issubclass(mixfeed.Timeout, TimeoutError) and issubclass(mixfeed.Argument, ValueError)
    assert issubclass(mixfeed.Fenced, mixfeed.Refused)
