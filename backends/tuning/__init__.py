"""Tuning: measures the choices that each layer has, and keeps what was measured.

    isolate    a layer and a choice become a library of their own
    space      a layer's choices as a design space of TVM's MetaSchedule
    search     how MetaSchedule walks through that space
    measuring  times a library beside the rules' own choice; runs in another process
    runners    MetaSchedule's builder and runners: this machine, or an RPC tracker's servers
    database   a folder of records that survives being killed
    tuner      all of it together
"""
