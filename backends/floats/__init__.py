"""What TVM's importer of exported programs needs for the float operators of the table.

`decompositions` says operators in simpler ones, in torch, before a float island is exported;
`converters` says others as Relax calls or as loops of our own, which `loops` has; `exact` keeps TVM
from simplifying what only holds for whole numbers.
"""
