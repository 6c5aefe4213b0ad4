"""Tuning: measures the choices that each layer has, and keeps what was measured.

- isolate: a layer and a choice become a library of their own
- space, search: the choices as a design space of TVM's MetaSchedule, and the walks through it
- measuring: times a library beside the rules' own choice; runs in another process
- runners: MetaSchedule's builder and runner, for this machine or the servers of an RPC tracker
- database: a folder of records that survives being killed
- tuner: all of it together
"""
