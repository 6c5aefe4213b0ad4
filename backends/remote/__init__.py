"""Devices behind TVM's RPC: what runs and measures there is uploaded from here.

A device runs a server (`python -m planish.rpc_server`, or TVM's own); this machine compiles.
"""
