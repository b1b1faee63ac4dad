"""firmware/SPEC.md, executed in exact Python integers: slow and obvious, one function per rule.

Imports nothing of quantgru, and reads the table out of the page itself. Python's integers never overflow, so each
value that the page says fits a type is checked against that type: an AssertionError here means that the page promises
a bound that does not hold. What is not a rule (fast runs, files, conversions from quantgru's types) lives elsewhere.
A module is a chapter of the page, or two.
"""

# ruff: noqa: F403
from oracle.arithmetic import *
from oracle.gru import *
from oracle.layers import *
from oracle.models import *
from oracle.page import *
from oracle.proofs import *
from oracle.runs import *
from oracle.values import *
