"""The examples as modules; the server that they start is the one that the suite tests."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
os.environ.setdefault("MIXFEED", str(ROOT / "target/debug/mixfeed"))
sys.path.insert(0, str(ROOT / "client/python/examples"))
